"""How much of each image is foreground, so that the views of small objects keep close to them."""

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
    """OUT/foreground.safetensors, the foreground direction of these images, and OUT/ratios.parquet; kept if there.

    Raises:
        ValueError: no encoder is named, or the files there are another's.
    """
    if encoder_name is None:
        raise ValueError("adaptive strength needs --foreground, the encoder that finds the foreground")
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
