"""Train a diffusion model of your own images on an encoder's embeddings (Gen-SIS's E-LDM)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

import sslzoo
import viewgen
from genviews.run_config import write_config
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress


@dataclass(frozen=True, kw_only=True)
class TrainGeneratorOptions:
    """Embed the images, train an autoencoder where one is needed, then the diffusion model; a repeated call goes on."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "autoencoder": ("autoencoder_steps", "autoencoder_batch_size", "latents_cached"),
        "execution": ("compile", "workers", "checkpoint_seconds", "device"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images; no labels are read."""
    encoder: str
    """A backbone folder that apps/pretrain wrote, or timm/<model>."""
    out: Path
    """Becomes a diffusers-style folder; the embeddings go to OUT/embeddings."""
    preset: Literal["32-small", "32-narrow", "32", "32-latent", "64-small", "256"] = "256"
    """The first two denoise pixels, the others an autoencoder's latents; "small" and "32-latent" are for a laptop's
    CPU; the latter needs the folder of a pretrained --autoencoder."""
    autoencoder: str = "train"
    """For latents: "train" one on the images first, in OUT/autoencoder, or the folder of a pretrained one: of diffusers
    (AutoencoderKL, VQModel, AutoencoderTiny), or taef2_encoder.pth and taef2_decoder.pth."""
    latents_cached: bool = True
    """Encode every image once and keep it in OUT/latents (16 KiB for 256 px), or every batch anew."""
    steps: int | None = None
    """Training steps of the diffusion model; by default the preset's."""
    batch_size: int | None = None
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=["--lr"])] = None
    autoencoder_steps: int | None = None
    """By default the preset's, scaled in proportion to --steps if that is given."""
    autoencoder_batch_size: int | None = None
    seed: int | None = None
    compile: bool = False
    """Compile the diffusion model: a minute at the start, faster steps after it."""
    workers: int = 4
    """Threads that read images."""
    checkpoint_seconds: float = 600.0
    device: str = "auto"


def run(options: TrainGeneratorOptions) -> Path:
    """Train in the processes of torchrun if there are several, and return the folder of the diffusion model."""
    context = sslzoo.init_distributed(os.environ, options.device)
    with lock_folder(options.out) if context.is_main else nullcontext():
        write_config(options.out, "train-generator", options)
        train_generator(options, context)
    return options.out


def train_generator(options: TrainGeneratorOptions, context: sslzoo.DistContext) -> None:
    """Wire encoder, embeddings and trainings, with bars and logs."""
    if options.preset == "32-latent" and options.autoencoder == "train":
        raise ValueError(
            "the preset 32-latent takes a pretrained autoencoder, got none; give --autoencoder FOLDER with a TAESD of "
            "diffusers, or with taef2_encoder.pth and taef2_decoder.pth of https://github.com/madebyollin/taesd"
        )
    given = {name: getattr(options, name) for name in ("steps", "batch_size", "learning_rate", "seed")}
    config = dataclasses.replace(
        viewgen.eldm.preset(options.preset), **{k: v for k, v in given.items() if v is not None}
    )
    with Progress(shown=context.is_main) as progress:
        if context.is_main:
            viewgen.embed_images(
                options.images,
                options.out / "embeddings",
                viewgen.load_encoder(options.encoder, other=sslzoo.resolve_backbone, device=str(context.device)),
                workers=options.workers,
                on_progress=progress.add_task("embeddings"),
            )
        sslzoo.barrier()
        embeddings = viewgen.Embeddings.load(options.out / "embeddings")
        autoencoder = open_autoencoder(options, embeddings.keys, context, progress) if config.latents else None
        model = viewgen.eldm.train_eldm(
            options.images,
            embeddings,
            options.out,
            config,
            on_encoded=progress.add_task("latents") if config.latents and options.latents_cached else None,
            on_step=logged(options.out, "diffusion model", context, progress),
            device=str(context.device),
            checkpoint_seconds=options.checkpoint_seconds,
            autoencoder=autoencoder,
            latents_cached=options.latents_cached,
            compile=options.compile,
            workers=options.workers,
            on_message=progress.message,
        )
        progress.console.print(f"diffusion model: {model}")


def open_autoencoder(
    options: TrainGeneratorOptions, keys: Sequence[str], context: sslzoo.DistContext, progress: Progress
) -> Path:
    """The folder given, or of an autoencoder trained on the images."""
    if options.autoencoder != "train":
        return Path(options.autoencoder)
    config = viewgen.eldm.autoencoder_preset(options.preset)
    given = {
        "steps": autoencoder_steps(options, config.steps),
        "batch_size": options.autoencoder_batch_size,
        "seed": options.seed,
    }
    folder = options.out / "autoencoder"
    return viewgen.eldm.train_autoencoder(
        options.images,
        folder,
        dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None}),
        keys=keys,
        on_step=logged(folder, "autoencoder", context, progress),
        device=str(context.device),
        checkpoint_seconds=options.checkpoint_seconds,
        workers=options.workers,
    )


def autoencoder_steps(options: TrainGeneratorOptions, whole: int) -> int:
    """Return the training steps of the autoencoder, by default ``whole`` scaled by --steps relative to the preset's.

    A short trial of the diffusion model therefore trains the autoencoder briefly as well.
    """
    if options.autoencoder_steps is not None:
        return options.autoencoder_steps
    if options.steps is None:
        return whole
    return max(1, round(whole * options.steps / viewgen.eldm.preset(options.preset).steps))


def logged(folder: Path, stage: str, context: sslzoo.DistContext, progress: Progress) -> viewgen.eldm.OnStep | None:
    """A callback that logs and moves a bar, in the process that leads."""
    return sslzoo.log_steps(folder, progress.add_task(stage)) if context.is_main else None
