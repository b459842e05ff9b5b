"""Measure the foreground ratio of each image, for adaptive strength (small objects get weaker changes)."""

from __future__ import annotations

from pathlib import Path

import pairquality
import sslzoo
from genviews_core.files import make_folder
from genviews_core.progress import Progress


def measure_foreground(
    images: Path,
    out: Path,
    encoder_name: str | None,
    workers: int,
    context: sslzoo.DistContext,
    progress: Progress,
) -> None:
    """Write OUT/foreground.safetensors (the foreground PCA of the images) and OUT/ratios.parquet, unless they exist.

    Raises:
        ValueError: no encoder is named, or the existing files are of another encoder.
    """
    if encoder_name is None:
        raise ValueError("expected --foreground ENCODER for adaptive strength, got none; give open_clip/MODEL:TAG")
    workers = max(1, workers)
    encoder = pairquality.load_encoder(encoder_name, device=str(context.device))
    file = out / "foreground.safetensors"
    if file.is_file():
        pca = pairquality.ForegroundPCA.load(file, encoder)
    else:
        make_folder(out)
        pca = pairquality.fit_images(images, encoder, workers=workers, on_progress=progress.add_task("foreground"))
        pca.save(file)
    update = progress.add_task("ratios")
    pairquality.write_ratios(images, out / "ratios.parquet", encoder, pca, workers=workers, on_progress=update)
