"""What a kind of view costs and brings.

uv run benchmarks/cost_benefit IMAGES VIEWS [VIEWS ...] --encoder open_clip/ViT-H-14:laion2b_s32b_b79k
uv run benchmarks/cost_benefit my/train runs/views runs/retrieved --encoder runs/dino/backbone

Published for 50,000 images of ImageNet (GenView, Table 10): retrieval 0.674, random noise 0.729, adaptive noise 0.743.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

import sslzoo
import viewgen
from clip import open_clip_encoder
from similarity import measure_similarity


@dataclass(frozen=True, kw_only=True)
class CostBenefit:
    """Mean cosine between images and their views, for any folders of views and any encoder."""

    images: Annotated[Path, tyro.conf.Positional]
    views: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders with a manifest.parquet."""
    encoder: str
    """open_clip/MODEL:TAG (or :FILE), timm/MODEL, or a backbone folder."""
    work: Path = Path("runs/cost-benefit")
    """Embeddings are kept here."""
    batch_size: int = 64
    workers: int = 4
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def measure(options: CostBenefit) -> Table:
    """Embed what is not embedded yet, compare, tabulate."""
    encoder = open_encoder(options.encoder, options.device)
    table = Table("views", "count", "cosine", "deviation", "another image's", "lost", title=f"by {encoder.name}")
    with sslzoo.Progress() as progress:

        def embed(folder: Path) -> viewgen.Embeddings:
            place = options.work / encoder.hash / folder.resolve().as_posix().strip("/").replace("/", "_")
            update = progress.stage(folder.name)
            return viewgen.embed_images(
                folder, place, encoder, batch_size=options.batch_size, workers=options.workers, on_progress=update
            )

        images = embed(options.images)
        for folder in options.views:
            if not (folder / "manifest.parquet").is_file():
                raise ValueError(f"{folder} has no manifest.parquet: run viewgen index {folder}")
            found = measure_similarity(images, embed(folder), folder / "manifest.parquet")
            counts = (f"{found.views}", f"{found.mean:.4f}", f"{found.deviation:.4f}", f"{found.other:.4f}")
            table.add_row(folder.name, *counts, f"{found.lost}")
    return table


def open_encoder(name: str, device: str) -> viewgen.ImageEncoder:
    """Whatever embeds an image as one vector."""
    if name.startswith("open_clip/"):
        return open_clip_encoder(name.removeprefix("open_clip/"), device)
    return viewgen.load_encoder(name, other=sslzoo.open_backbone, device=device)


def main() -> None:
    """Measure and print the table; a user's mistake ends in one line."""
    try:
        Console(width=140).print(measure(tyro.cli(CostBenefit, description=__doc__)))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
