"""Train a diffusion model of your own images on an encoder's embeddings (Gen-SIS's E-LDM).

uv run apps/train_generator IMAGES --encoder runs/cifar10-dino/backbone --out runs/eldm --preset 32
uv run torchrun --standalone --nproc_per_node=8 apps/train_generator IMAGES --encoder ... --out ... --preset 256
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import sslzoo
import viewgen
from viewgen import eldm


@dataclass(frozen=True, kw_only=True)
class TrainGenerator:
    """Embed the images, then train the diffusion model; started again, it goes on where it stopped."""

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images; no labels are read."""
    encoder: str
    """A backbone folder that apps/pretrain wrote, or timm/<model>."""
    out: Path
    """Becomes a diffusers-style folder; the embeddings go to OUT/embeddings."""
    preset: str = "256"
    """32-small, 32 or 256."""
    autoencoder: Path | None = None
    """Folder of a diffusers autoencoder, for latent diffusion."""
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    workers: int = 0
    """Processes that decode images for the embeddings."""
    checkpoint_seconds: float = 600.0
    device: str = "auto"


def train_generator(options: TrainGenerator, worker: sslzoo.Worker) -> None:
    """Wire encoder, embeddings and training, with bars and logs."""
    given = {name: getattr(options, name) for name in ("steps", "batch_size", "lr", "seed")}
    config = dataclasses.replace(eldm.preset(options.preset), **{k: v for k, v in given.items() if v is not None})
    with sslzoo.Progress(shown=worker.leads) as progress:
        if worker.leads:
            viewgen.embed_images(
                options.images,
                options.out / "embeddings",
                open_encoder(options.encoder, str(worker.device)),
                workers=options.workers,
                on_progress=progress.stage("embeddings"),
            )
        sslzoo.wait_for_all()
        model = eldm.train_eldm(
            options.images,
            viewgen.Embeddings.load(options.out / "embeddings"),
            options.out,
            config,
            on_step=sslzoo.log_steps(options.out, progress.stage("diffusion model")) if worker.leads else None,
            device=str(worker.device),
            checkpoint_seconds=options.checkpoint_seconds,
            autoencoder=options.autoencoder,
        )
        progress.console.print(f"diffusion model: {model}")


def open_encoder(name: str, device: str) -> viewgen.ImageEncoder:
    """A timm model by name, or a backbone folder."""
    if name.startswith("timm/"):
        return viewgen.load_encoder(name, device=device)
    return viewgen.ImageEncoder(sslzoo.load_backbone(name), name=name, device=device, **sslzoo.backbone_input(name))


def main() -> None:
    """Read the command line and run it; a user's mistake ends in one line."""
    options = tyro.cli(
        TrainGenerator, description="Train a diffusion model of your own images on an encoder's embeddings."
    )
    try:
        train_generator(options, sslzoo.start_worker(os.environ, options.device))
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


if __name__ == "__main__":
    main()
