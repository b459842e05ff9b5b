"""CLIP image embeddings after the projection, which CLIP similarities are computed from.

pairquality's encoders are the same towers without the projection, with one vector per patch.
"""

from __future__ import annotations

from typing import Any

import open_clip
from jaxtyping import Float
from torch import Tensor, nn

import viewgen


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.visual(images)


def open_clip_encoder(name: str, device: str) -> viewgen.ImageEncoder:
    """Load the image tower of an open_clip model.

    Args:
        name: MODEL:TAG as in `open_clip.list_pretrained()`, or MODEL:FILE with a checkpoint that contains only tensors.
        device: device of the model.

    Raises:
        ValueError: open_clip does not know the model, or its weights cannot be loaded.
    """
    architecture, colon, weights = name.partition(":")
    if architecture not in open_clip.list_models() or not colon:
        raise ValueError(
            f"expected open_clip/MODEL:TAG as in open_clip.list_pretrained(), got open_clip/{name}; choose one of them"
        )
    try:
        model: Any = open_clip.create_model(architecture, pretrained=weights, weights_only=True)
    except Exception as error:  # errors of the hub and of open_clip have no common base class
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"cannot load the weights {weights!r} of {architecture} ({reason}); give a file") from error
    about = model.visual.preprocess_cfg
    size = about["size"][-1] if isinstance(about["size"], (tuple, list)) else about["size"]
    return viewgen.ImageEncoder(
        _ImageTower(model),
        size=size,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        name=f"open_clip/{name}",
        supervision="captions",
        device=device,
    )
