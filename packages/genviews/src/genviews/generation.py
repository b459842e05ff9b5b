"""Generate views of a folder of images with an E-LDM or a Stable unCLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

import sslzoo
import viewgen
from genviews.encoders import open_encoder
from genviews.processes import join_processes
from genviews.run_config import write_config
from genviews_core.files import make_folder
from genviews_core.progress import Progress
from viewgen.formats import RGB, default_format

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "float32": "float32"}


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Write VIEWS/<key>.<k>.png and VIEWS/manifest.parquet; a repeated call generates only missing views."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "condition": ("from_image", "strength", "foreground", "alpha", "partner"),
        "sampling": ("steps", "guidance", "seed", "precision"),
        "execution": ("image_format", "channels", "batch_size", "workers", "device"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    out: Path
    """Folder for the views."""
    model: Path
    """Folder of a diffusion model written by `genviews train-generator`, or a folder, a hub id or a name that `viewgen
    models` lists for the other generators."""
    generator: Literal["eldm", "image-to-image", "ip-adapter", "unclip"] = "eldm"
    """Generator; `viewgen generate` has further ones."""
    adapter: Path | None = None
    """IP-Adapter for ip-adapter, unless --model is a name, which comes with one."""
    encoder: str | None = None
    """Encoder of the E-LDM's training, a backbone folder or timm/MODEL; needed for images that are not in --model."""
    from_image: bool = False
    """Start an E-LDM from the image itself (with --interpolate: from two), with noise added according to --strength."""
    strength: str | None = None
    """Noise level for unclip and ip-adapter, fraction of the noise process for eldm --from-image and image-to-image: a
    number, random, or adaptive."""
    foreground: str | None = None
    """Encoder that measures the foreground for adaptive strength: open_clip/MODEL:TAG, timm/MODEL or a folder."""
    views_per_image: int = 1
    interpolate: bool = False
    """Condition on a mixture with the embedding of another image, for the disentanglement loss."""
    alpha: tuple[float, float] = (0.3, 0.7)
    """Range from which the weight of the image itself in the mixture is drawn."""
    partner: Literal["random", "nearest"] = "random"
    """Choice of the other image."""
    steps: int | None = None
    """Denoising steps per view; default: 12 for eldm, 20 for the others or what a distilled model needs."""
    guidance: float | None = None
    """Scale of classifier-free guidance; default: 4 for eldm, 10 for unclip, 7.5 for the others."""
    batch_size: int = 64
    image_format: Literal["png", "jpg", "tif"] | None = None
    """Default: png for gray and RGB views, tif for other numbers of channels."""
    channels: int | None = None
    """Channels of the images; default: those of the model. Only an E-LDM can have other than three."""
    seed: int = 0
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    workers: int = 4
    """Threads per process that read images and write views."""
    device: str = "auto"


def run(options: GenerateOptions) -> viewgen.RunSummary:
    """Generate the missing views, on all processes of torchrun."""
    return generate(options, join_processes(options.device))


def generate(options: GenerateOptions, context: sslzoo.DistContext) -> viewgen.RunSummary:
    """Embed images and measure foregrounds if needed, generate this process's views, and merge the journals."""
    if context.is_main:
        make_folder(options.out)
        write_config(options.out, "generate", options)
    generator = open_generator(options, str(context.device))
    with Progress(shown=context.is_main) as progress:
        if context.is_main and options.encoder is not None:
            pixels = {"channels": options.channels, "value_range": getattr(generator, "value_range", None)}
            encoder = open_encoder(options.encoder, options.images, device=str(context.device), **pixels)
            update = progress.add_task("embeddings")
            viewgen.embed_images(
                options.images, options.out / "embeddings", encoder, workers=options.workers, on_progress=update
            )
        adaptive = options.strength is not None and options.strength.startswith("adaptive")
        if context.is_main and adaptive:
            from genviews.foreground_ratios import measure_foreground

            measure_foreground(options.images, options.out, options.foreground, options.workers, context, progress)
        statistics = options.out / "statistics.safetensors"
        noised = options.generator == "ip-adapter" and options.strength is not None
        if context.is_main and noised and not statistics.exists():
            viewgen.measure_statistics(
                options.images, statistics, generator, on_progress=progress.add_task("statistics")
            )
        sslzoo.barrier()
        if noised:
            generator.use_statistics(statistics)
        ratios = viewgen.ForegroundRatios.read(options.out / "ratios.parquet") if adaptive else None
        mixing = viewgen.Interpolation(alpha=options.alpha, partner=options.partner) if options.interpolate else None
        summary = viewgen.generate_views(
            options.images,
            options.out,
            generator,
            embeddings=find_embeddings(options),
            interpolate=mixing,
            strength=None
            if options.strength is None
            else viewgen.parse_strength(options.strength, ratios, generator.strength_levels),
            views_per_image=options.views_per_image,
            seed=options.seed,
            batch_size=options.batch_size,
            image_format=options.image_format or default_format(getattr(generator, "channels", RGB)),
            shard=(context.rank, context.world_size),
            workers=options.workers,
            on_progress=progress.add_task("views"),
            on_message=progress.message if context.is_main else None,
        )
        sslzoo.barrier()
        if context.is_main:
            progress.console.print(f"manifest: {viewgen.merge_journals(options.out)}")
    return summary


def open_generator(options: GenerateOptions, device: str) -> Any:
    """Load the generator on this process's device.

    Raises:
        ValueError: options are incompatible, or see `viewgen.load_generator`.
    """
    editing: dict[str, Any] = {}
    if options.generator != "eldm" and options.channels not in (None, RGB):
        raise ValueError(
            f"--generator {options.generator} takes RGB images, got --channels {options.channels}; train one of "
            "your own images with apps/train_generator"
        )
    if options.from_image:
        if options.generator != "eldm":
            raise ValueError(
                f"expected --from-image with --generator eldm, got {options.generator}; change one of the options"
            )
        editing = {"from_image": True}
    if options.adapter is not None:
        if options.generator != "ip-adapter":
            raise ValueError(f"expected --adapter with --generator ip-adapter, got {options.generator}; leave it out")
        editing = {"adapter": options.adapter}
    sampling: dict[str, Any] = {"steps": options.steps, "guidance": options.guidance}
    generator = viewgen.load_generator(
        options.generator,
        **{"folder" if options.generator == "eldm" else "model": options.model},
        **{name: value for name, value in sampling.items() if value is not None},
        **editing,
        device=device,
        dtype=DTYPES[options.precision],
    )
    channels = getattr(generator, "channels", RGB)
    if options.channels not in (None, channels):
        raise ValueError(
            f"expected --channels {channels}, as {options.model} has, got {options.channels}; leave it out"
        )
    if channels != RGB and options.strength is not None and options.strength.startswith("adaptive"):
        raise ValueError(f"--strength adaptive takes RGB images, got {channels} channels; give a number, or random")
    return generator


def find_embeddings(options: GenerateOptions) -> viewgen.Embeddings | None:
    """Return the embeddings that condition an E-LDM: those of --out, or those it was trained on; None for others.

    Raises:
        ValueError: the folder of the model has no embeddings, and no encoder is given.
    """
    if options.generator != "eldm":
        return None
    if options.encoder is None and not (options.model / "embeddings").exists():
        raise ValueError(
            f"expected embeddings in {options.model}, got none; give --encoder, the encoder the model was trained with"
        )
    return viewgen.Embeddings.load((options.out if options.encoder else options.model) / "embeddings")
