"""Paint views of a folder of images.

uv run apps/generate IMAGES --out VIEWS --model runs/eldm                     # generative views
uv run apps/generate IMAGES --out MIXED --model runs/eldm --interpolate       # half this image, half another
uv run torchrun --standalone --nproc_per_node=8 apps/generate IMAGES --out VIEWS --model runs/eldm
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

import sslzoo
import viewgen
from viewgen import eldm


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write VIEWS/<key>.<k>.png and VIEWS/manifest.parquet; started again, only what is missing is painted."""

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    out: Path
    """Folder for the views."""
    model: Path
    """Folder of a diffusion model that apps/train_generator wrote."""
    encoder: str | None = None
    """The encoder it was trained with: a backbone folder or timm/<model>. Needed for images it was not trained on."""
    views_per_image: int = 1
    interpolate: bool = False
    """Condition on a mixture with another image, for the disentanglement term."""
    alpha: tuple[float, float] = (0.3, 0.7)
    """The mixture's weight of the image itself is drawn between these."""
    partner: Literal["random", "nearest"] = "random"
    steps: int = 12
    guidance: float = 2.0
    batch_size: int = 64
    image_format: Literal["png", "jpg"] = "png"
    seed: int = 0
    precision: Literal["bf16", "float32"] = "bf16"
    workers: int = 0
    device: str = "auto"


def generate(options: Generate, worker: sslzoo.Worker) -> viewgen.RunSummary:
    """Embed what is not embedded yet, paint this process's share, fold the journals."""
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    generator = eldm.ELDMGenerator(
        options.model, steps=options.steps, guidance=options.guidance, device=str(worker.device), dtype=dtype
    )
    with sslzoo.Progress(shown=worker.leads) as progress:
        if worker.leads and options.encoder is not None:
            encoder = viewgen.load_encoder(options.encoder, other=sslzoo.open_backbone, device=str(worker.device))
            update = progress.stage("embeddings")
            viewgen.embed_images(
                options.images, options.out / "embeddings", encoder, workers=options.workers, on_progress=update
            )
        sslzoo.wait_for_all()
        summary = viewgen.generate_views(
            options.images,
            options.out,
            generator,
            embeddings=viewgen.Embeddings.load((options.out if options.encoder else options.model) / "embeddings"),
            interpolate=viewgen.Interpolation(alpha=options.alpha, partner=options.partner)
            if options.interpolate
            else None,
            views_per_image=options.views_per_image,
            seed=options.seed,
            batch_size=options.batch_size,
            image_format=options.image_format,
            shard=(worker.rank, worker.world_size),
            workers=options.workers,
            on_progress=progress.stage("views"),
        )
        sslzoo.wait_for_all()
        if worker.leads:
            progress.console.print(f"manifest: {viewgen.fold_journals(options.out)}")
    return summary


def main() -> None:
    """Read the command line and run it; a user's mistake ends in one line, failed images in exit code 3."""
    options = tyro.cli(Generate, description="Paint views of a folder of images.")
    try:
        summary = generate(options, sslzoo.start_worker(os.environ, options.device))
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    if summary.failed:
        print(f"{summary.failed} views could not be made: see {options.out / 'failures.jsonl'}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
