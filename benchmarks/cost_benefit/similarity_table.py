"""Mean cosine between images and their views, for any folders of views and any encoder (GenView's Table 10).

Published results on 50,000 images of ImageNet: retrieval 0.674, random noise 0.729, adaptive noise 0.743.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

import viewgen
from benchmarks.cost_benefit.encoders import open_encoder
from benchmarks.cost_benefit.similarity import measure_similarity
from genviews_core.device import resolve_device
from genviews_core.progress import Progress
from viewgen.fingerprint import keys_hash
from viewgen.manifest import open_manifest


@dataclass(frozen=True, kw_only=True)
class CostBenefit:
    """Mean cosine between images and their views."""

    images: Annotated[Path, tyro.conf.Positional]
    views: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of views with a manifest.parquet."""
    encoder: str
    """Encoder: open_clip/MODEL:TAG (or :FILE), timm/MODEL, or a backbone folder."""
    work: Path = Path("runs/cost-benefit")
    """Folder for embeddings."""
    batch_size: int = 64
    workers: int = 4
    device: str = "auto"


def main(arguments: Sequence[str]) -> Table:
    """Return the table for command-line arguments."""
    return measure(tyro.cli(CostBenefit, description=__doc__, args=arguments))


def measure(options: CostBenefit) -> Table:
    """Embed missing images and views, compare, and tabulate."""
    manifests = [open_manifest(folder) for folder in options.views]
    encoder = open_encoder(options.encoder, str(resolve_device(options.device)))
    table = Table("views", "count", "cosine", "deviation", "another image's", "lost", title=f"by {encoder.name}")
    with Progress() as progress:

        def embed(folder: Path) -> viewgen.Embeddings:
            place = options.work / encoder.hash / keys_hash([folder.resolve().as_posix()])
            update = progress.add_task(folder.name)
            return viewgen.embed_images(
                folder, place, encoder, batch_size=options.batch_size, workers=options.workers, on_progress=update
            )

        images = embed(options.images)
        for folder, manifest in zip(options.views, manifests, strict=True):
            found = measure_similarity(images, embed(folder), manifest)
            counts = (f"{found.views}", f"{found.mean:.4f}", f"{found.deviation:.4f}", f"{found.other:.4f}")
            table.add_row(folder.name, *counts, f"{found.lost}")
    return table
