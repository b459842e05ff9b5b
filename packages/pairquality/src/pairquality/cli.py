"""The command ``pairquality``: find the foreground with a frozen encoder, and distill the encoder into a small scorer.

pairquality fit IMAGES --encoder open_clip/ViT-H-14:laion2b_s32b_b79k --out foreground.safetensors

pairquality ratios IMAGES --pca foreground.safetensors --out ratios.parquet

pairquality visualize IMAGES --pca foreground.safetensors --out maps.png

pairquality distill IMAGES --pca foreground.safetensors --out scorer.safetensors
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from genviews_core.command import command
from genviews_core.files import check_writable
from genviews_core.lock import lock_file
from genviews_core.progress import progress_bar
from pairquality.scorers.distill_config import DistillConfig

if TYPE_CHECKING:
    import pairquality

FAILED = 3  # exit code of a run in which some images could not be read


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Options of all commands: images and how they are encoded."""

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    size: int | None = None
    """Image size of the encoder in pixels; by default its own, or the one the PCA was fitted at."""
    mean: tuple[float, float, float] | None = None
    """Mean and std of the encoder's normalization, if the encoder does not define them."""
    std: tuple[float, float, float] | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type in which the encoder computes."""
    batch_size: int = 64
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
    """auto (a CUDA GPU if available, otherwise the CPU), cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True, kw_only=True)
class Fit(Encoding):
    """Fit the foreground direction of an encoder on a sample of images."""

    encoder: str
    """open_clip/MODEL:TAG, open_clip/MODEL:PATH, timm/MODEL, timm/MODEL:PATH, or a backbone folder."""
    out: Path
    """The .safetensors file to write."""
    count: Annotated[int, tyro.conf.arg(name="images")] = 10_000
    """Number of images, chosen at random."""
    share_foreground: float = 0.4
    """Fraction of all tokens above the threshold."""
    skip_border: int = 0
    """Rings of outermost tokens excluded from the direction; 1 for convolutional networks with zero padding. Without
    --size, images are enlarged until some inner tokens remain."""
    centered: bool = True
    """Project x - mean; --no-centered projects x, as in GenView's code."""
    threshold_rule: Literal["quantile", "histogram"] = "quantile"
    """histogram is the rule of GenView's code, which uses a fraction of 0.35."""
    sample_gb: float = 1.0
    """Memory for the sample of tokens from which the threshold is computed."""
    seed: int = 0
    """Seed of the choice of images."""


@dataclass(frozen=True, kw_only=True)
class WithPCA(Encoding):
    """Options of the commands that use a fitted PCA."""

    pca: Path
    """File that `pairquality fit` wrote."""
    encoder: str | None = None
    """Name of the PCA's encoder, if it has moved since `fit`."""


@dataclass(frozen=True, kw_only=True)
class Ratios(WithPCA):
    """Write the foreground ratio of every image; run again, it continues where it stopped."""

    out: Path
    """The .parquet file to write: key, foreground_ratio."""


@dataclass(frozen=True, kw_only=True)
class Visualize(WithPCA):
    """Draw some images with their foreground maps overlaid."""

    out: Path
    """The .png or .jpg file to write."""
    count: int = 12
    """Number of images shown."""
    seed: int = 0
    """Seed of their choice."""


@dataclass(frozen=True, kw_only=True)
class Distill(WithPCA):
    """Train a small network to score pairs as the encoder does; run again, it continues where it stopped."""

    out: Path
    """The .safetensors file to write."""
    training: Annotated[DistillConfig, tyro.conf.arg(name="")] = field(default_factory=DistillConfig)


@command
def main() -> None:
    """Run the command line; a user's mistake ends with a one-line message."""
    try:
        sys.exit(run(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"error: {error}")


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code.

    Raises:
        ValueError: for a user's mistake.
    """
    chosen = tyro.extras.subcommand_cli_from_dict(
        {"fit": Fit, "ratios": Ratios, "visualize": Visualize, "distill": Distill},
        prog="pairquality",
        description=__doc__,
        args=arguments,
    )
    return next(command for kind, command in COMMANDS.items() if isinstance(chosen, kind))(chosen)


def _fit(command: Fit) -> int:
    with lock_file(command.out):
        return _fit_locked(command)


def _fit_locked(command: Fit) -> int:
    import pairquality

    check_writable(command.out)
    encoder = _with_center(command, _load(command, command.encoder, command.size))
    with progress_bar("images") as update, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pca = pairquality.fit_images(
            command.images,
            encoder,
            command.share_foreground,
            images=command.count,
            seed=command.seed,
            batch_size=command.batch_size,
            workers=command.workers,
            on_progress=update,
            centered=command.centered,
            skip_border=command.skip_border,
            threshold_rule=command.threshold_rule,
            sample_bytes=round(command.sample_gb * 2**30),
        )
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    pca.save(command.out)
    assert pca.fitted_on is not None
    print(
        f"{command.out}: {pca.fitted_on.images} images, threshold {pca.threshold:.4f}, "
        f"center above border by {pca.margin:.2f} standard deviations"
    )
    return 0


def _with_center(command: Fit, encoder: "pairquality.FeatureEncoder") -> "pairquality.FeatureEncoder":
    """Return the encoder at the size given by `--size`, or at a larger default if its map consists only of border."""
    from pairquality.fit import size_with_center

    if command.size is not None or (size := size_with_center(encoder, command.skip_border)) == encoder.size:
        return encoder
    rows, columns = encoder.grid
    print(
        f"using images of {size} px instead of {encoder.size}, whose map of {rows} x {columns} tokens has no center; "
        "override with --size",
        file=sys.stderr,
    )
    return _load(command, command.encoder, size)


def _ratios(command: Ratios) -> int:
    import pairquality

    pca, encoder = _load_pca(command)
    with progress_bar("ratios") as update:
        summary = pairquality.write_ratios(
            command.images,
            command.out,
            encoder,
            pca,
            batch_size=command.batch_size,
            workers=command.workers,
            on_progress=update,
        )
    print(f"{command.out}: {summary.written} ratios")
    if summary.failed:
        print(f"{summary.failed} images cannot be read; see {summary.failures}", file=sys.stderr)
    return FAILED if summary.failed else 0


def _visualize(command: Visualize) -> int:
    import pairquality

    check_writable(command.out)
    pca, encoder = _load_pca(command)
    print(
        pairquality.foreground_sheet(command.images, command.out, encoder, pca, count=command.count, seed=command.seed)
    )
    return 0


def _distill(command: Distill) -> int:
    from genviews_core.device import resolve_device
    from pairquality.scorers import distill

    pca, encoder = _load_pca(command)
    options = {"workers": command.workers, "device": resolve_device(command.device)}
    with progress_bar("steps") as update:
        metadata = distill(command.images, command.out, encoder, pca, command.training, on_progress=update, **options)
    correlation = metadata.rank_correlation
    print(
        f"{command.out}: rank correlation with {metadata.encoder} on held-out pairs {correlation['quality']:.3f} "
        f"(foreground {correlation['foreground']:.3f}, background {correlation['background']:.3f})"
    )
    return 0


def _load_pca(command: WithPCA) -> "tuple[pairquality.ForegroundPCA, pairquality.FeatureEncoder]":
    import pairquality

    pca = pairquality.ForegroundPCA.load(command.pca)
    known = pca.fitted_on
    if known is None:
        raise ValueError(f"{command.pca} does not record the encoder it was fitted on; fit it with `pairquality fit`")
    size, mean, std = command.size or known.size, command.mean or known.mean, command.std or known.std
    encoder = _load(replace(command, mean=mean, std=std), command.encoder or known.encoder, size)
    pca.validate_encoder(encoder)
    return pca, encoder


def _load(command: Encoding, name: str, size: int | None) -> "pairquality.FeatureEncoder":
    import torch

    import pairquality
    from genviews_core.device import resolve_device

    return pairquality.load_encoder(
        name,
        size=size,
        mean=command.mean,
        std=command.std,
        autocast=None if command.precision == "float32" else getattr(torch, command.precision),
        device=resolve_device(command.device),
    )


COMMANDS: dict[type, Callable[[Any], int]] = {Fit: _fit, Ratios: _ratios, Visualize: _visualize, Distill: _distill}
