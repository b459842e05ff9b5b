"""Open encoders that embed an image as one vector, by name."""

from __future__ import annotations

import sslzoo
import viewgen


def open_encoder(name: str, device: str) -> viewgen.ImageEncoder:
    """Open open_clip/MODEL:TAG (or :FILE), timm/MODEL, a backbone folder or an official checkpoint.

    Raises:
        ValueError: the name is none of these, or the file cannot be read.
    """
    if name.startswith("open_clip/"):
        from benchmarks.cost_benefit.clip import open_clip_encoder

        return open_clip_encoder(name.removeprefix("open_clip/"), device)
    return viewgen.load_encoder(name, other=sslzoo.resolve_backbone, device=device)
