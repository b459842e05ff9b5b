"""Train a diffusion model of your own images on an encoder's embeddings (Gen-SIS's E-LDM)."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

import sslzoo
import viewgen
from genviews.encoders import open_encoder
from genviews.processes import join_processes
from genviews.run_config import write_config
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress


@dataclass(frozen=True, kw_only=True)
class TrainGeneratorOptions:
    """Embed the images, train an autoencoder if needed, and the diffusion model; a repeated call continues."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "autoencoder": ("autoencoder_steps", "autoencoder_batch_size", "latents_cached"),
        "channels": ("channels", "value_range"),
        "execution": ("compile", "workers", "checkpoint_seconds", "device"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images; labels are not read."""
    encoder: str
    """Backbone folder written by `genviews pretrain`, or timm/MODEL."""
    channels: int | None = None
    """Channels of the images; default: those of the encoder. The first layer of timm's networks is adapted."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits and other than three channels; default: those of
    the encoder, or of a sample."""
    out: Path
    """Folder for the diffusion model in diffusers' layout, with OUT/embeddings."""
    preset: Literal["32-small", "32-narrow", "32-dit", "32", "32-latent", "64-small", "256"] = "256"
    """Network and schedule for an image size in pixels. "32-latent", "64-small" and "256" denoise latents, the others
    pixels. "32-latent" needs a pretrained --autoencoder. All but "32" and "256" suit a laptop's CPU."""
    autoencoder: str = "train"
    """For latents: "train" to train one on the images in OUT/autoencoder, or the folder of a pretrained one of
    diffusers (AutoencoderKL, VQModel, AutoencoderTiny), or with taef2_encoder.pth and taef2_decoder.pth."""
    latents_cached: bool = True
    """Encode every image once and store it in OUT/latents (16 KiB per image of 256 px), instead of in every batch."""
    steps: int | None = None
    """Training steps of the diffusion model; default: that of the preset."""
    batch_size: int | None = None
    """Images per step of the diffusion model, over all processes; default: that of the preset."""
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=["--lr"])] = None
    """Learning rate of the diffusion model; default: that of the preset."""
    autoencoder_steps: int | None = None
    """Training steps of the autoencoder; default: that of the preset, scaled in proportion to --steps."""
    autoencoder_batch_size: int | None = None
    seed: int | None = None
    compile: bool = False
    """Compile the diffusion model: about a minute at the start, faster steps afterwards."""
    workers: int = 4
    """Threads that read images."""
    checkpoint_seconds: float = 600.0
    """Seconds between checkpoints."""
    device: str = "auto"


def run(options: TrainGeneratorOptions) -> Path:
    """Train on all processes of torchrun, and return the folder of the diffusion model."""
    context = join_processes(options.device)
    with lock_folder(options.out) if context.is_main else nullcontext():
        if context.is_main:
            write_config(options.out, "train-generator", options)
        train_generator(options, context)
    return options.out


def train_generator(options: TrainGeneratorOptions, context: sslzoo.DistContext) -> None:
    """Embed the images, and train the autoencoder and the diffusion model, with progress bars and logs."""
    if options.preset == "32-latent" and options.autoencoder == "train":
        raise ValueError(
            "expected a pretrained autoencoder for the preset 32-latent, got none; give --autoencoder FOLDER with a "
            "TAESD of diffusers, or with taef2_encoder.pth and taef2_decoder.pth of https://github.com/madebyollin/taesd"
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
                open_encoder(
                    options.encoder,
                    options.images,
                    channels=options.channels,
                    value_range=options.value_range,
                    device=str(context.device),
                ),
                workers=options.workers,
                on_progress=progress.add_task("embeddings"),
            )
        sslzoo.barrier()
        embeddings = viewgen.Embeddings.load(options.out / "embeddings")
        autoencoder = open_autoencoder(options, embeddings, context, progress) if config.latents else None
        model = viewgen.eldm.train_eldm(
            options.images,
            embeddings,
            options.out,
            config,
            on_encoded=progress.add_task("latents") if config.latents and options.latents_cached else None,
            on_step=step_logger(options.out, "diffusion model", context, progress),
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
    options: TrainGeneratorOptions, embeddings: viewgen.Embeddings, context: sslzoo.DistContext, progress: Progress
) -> Path:
    """Return the folder given by --autoencoder, or train an autoencoder on the images and return its folder."""
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
        keys=embeddings.keys,
        on_step=step_logger(folder, "autoencoder", context, progress),
        device=str(context.device),
        checkpoint_seconds=options.checkpoint_seconds,
        workers=options.workers,
        channels=embeddings.channels,
        value_range=embeddings.encoder_value_range,
    )


def autoencoder_steps(options: TrainGeneratorOptions, preset_steps: int) -> int:
    """Return the training steps of the autoencoder.

    Without --autoencoder-steps, those of the preset are scaled by the ratio of --steps to the preset's steps of the
    diffusion model, so that a short trial trains both models briefly.
    """
    if options.autoencoder_steps is not None:
        return options.autoencoder_steps
    if options.steps is None:
        return preset_steps
    return max(1, round(preset_steps * options.steps / viewgen.eldm.preset(options.preset).steps))


def step_logger(folder: Path, task: str, context: sslzoo.DistContext, progress: Progress) -> viewgen.eldm.OnStep | None:
    """Return a callback that logs metrics and updates a progress bar on the main process; None on the others."""
    return sslzoo.log_steps(folder, progress.add_task(task)) if context.is_main else None
