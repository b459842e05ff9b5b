"""The command ``pairquality``: what is foreground by a frozen encoder, and a small network that scores pairs by it.

pairquality fit IMAGES --encoder open_clip/ViT-H-14:laion2b_s32b_b79k --out foreground.safetensors

pairquality ratios IMAGES --pca foreground.safetensors --out ratios.parquet

pairquality look IMAGES --pca foreground.safetensors --out maps.png

pairquality distill IMAGES --pca foreground.safetensors --out scorer.safetensors
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

import pairquality
from genviews_core.command import command
from genviews_core.device import resolve_device
from genviews_core.files import check_writable
from genviews_core.lock import lock_file
from genviews_core.progress import progress_bar
from pairquality.fit import size_with_center
from pairquality.scorers.distill_command import run_distill
from pairquality.scorers.distillation import DistillConfig

FAILED = 3  # exit code of a run that could not read some images
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What every command needs to encode images."""

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    size: int | None = None
    """Side in pixels of the encoder's images; without it its own, or the PCA's."""
    mean: tuple[float, float, float] | None = None
    """The encoder's normalization, where its own is not known."""
    std: tuple[float, float, float] | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the encoder computes in."""
    batch_size: int = 64
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
    """auto (a CUDA GPU if available, otherwise the CPU), cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True, kw_only=True)
class Fit(Encoding):
    """Find the foreground direction of an encoder on some images."""

    encoder: str
    """open_clip/MODEL:TAG, open_clip/MODEL:PATH, timm/MODEL, timm/MODEL:PATH, or a backbone's folder."""
    out: Path
    """The .safetensors file to write."""
    count: Annotated[int, tyro.conf.arg(name="images")] = 10_000
    """How many images, chosen at random."""
    share_foreground: float = 0.4
    """Share of all tokens that the threshold makes foreground."""
    skip_border: int = 0
    """Rings of outermost tokens excluded from the direction; 1 for convolutional networks with zero padding. Without
    --size, images are enlarged until some inner tokens remain."""
    centered: bool = True
    """Project x - mean; --no-centered projects x, as GenView's code."""
    threshold_rule: Literal["quantile", "histogram"] = "quantile"
    """histogram is that of GenView's code, with a share of 0.35."""
    sample_gb: float = 1.0
    """Memory for the tokens that the threshold is taken over."""
    seed: int = 0
    """Of the choice of images."""


@dataclass(frozen=True, kw_only=True)
class WithPCA(Encoding):
    """What the commands that use a PCA have in common."""

    pca: Path
    """What `pairquality fit` wrote."""
    encoder: str | None = None
    """Where the PCA's encoder is now, if not under the name that `fit` was given."""


@dataclass(frozen=True, kw_only=True)
class Ratios(WithPCA):
    """Write the foreground ratio of every image; started again, it goes on where it stopped."""

    out: Path
    """The .parquet file to write: key, foreground_ratio."""


@dataclass(frozen=True, kw_only=True)
class Look(WithPCA):
    """Draw some images with their foreground maps laid over them."""

    out: Path
    """The .png or .jpg file to write."""
    count: int = 12
    """Images shown."""
    seed: int = 0
    """Of their choice."""


@dataclass(frozen=True, kw_only=True)
class Distill(WithPCA):
    """Train a small network to score pairs as the encoder does; started again, it goes on where it stopped."""

    out: Path
    """The .safetensors file to write."""
    training: Annotated[DistillConfig, tyro.conf.arg(name="")] = field(default_factory=DistillConfig)


@command
def main() -> None:
    """Run one of the commands; a user's mistake ends in one line."""
    try:
        sys.exit(run(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code.

    Raises:
        ValueError: for a user's mistake.
    """
    chosen = tyro.extras.subcommand_cli_from_dict(
        {"fit": Fit, "ratios": Ratios, "look": Look, "distill": Distill},
        prog="pairquality",
        description=__doc__,
        args=arguments,
    )
    return next(command for kind, command in COMMANDS.items() if isinstance(chosen, kind))(chosen)


def _fit(command: Fit) -> int:
    with lock_file(command.out):
        return _fit_locked(command)


def _fit_locked(command: Fit) -> int:
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
        f"{command.out}: {pca.fitted_on.images} images, threshold {pca.threshold:.4f}, center above border by", end=" "
    )
    print(f"{pca.margin:.2f} standard deviations")
    return 0


def _with_center(command: Fit, encoder: pairquality.FeatureEncoder) -> pairquality.FeatureEncoder:
    """Return the encoder at the size given by `--size`, or at a larger default if its map consists only of border."""
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
        print(f"{summary.failed} images cannot be read: see {summary.failures}", file=sys.stderr)
    return FAILED if summary.failed else 0


def _look(command: Look) -> int:
    check_writable(command.out)
    pca, encoder = _load_pca(command)
    print(
        pairquality.foreground_sheet(command.images, command.out, encoder, pca, count=command.count, seed=command.seed)
    )
    return 0


def _distill(command: Distill) -> int:
    pca, encoder = _load_pca(command)
    options = {"workers": command.workers, "device": resolve_device(command.device)}
    return run_distill(command.images, command.out, encoder, pca, command.training, **options)


def _load_pca(command: WithPCA) -> tuple[pairquality.ForegroundPCA, pairquality.FeatureEncoder]:
    pca = pairquality.ForegroundPCA.load(command.pca)
    known = pca.fitted_on
    if known is None:
        raise ValueError(f"{command.pca} does not say which encoder it was fitted on: make it with `pairquality fit`.")
    size, mean, std = command.size or known.size, command.mean or known.mean, command.std or known.std
    encoder = _load(replace(command, mean=mean, std=std), command.encoder or known.encoder, size)
    pca.validate_encoder(encoder)
    return pca, encoder


def _load(command: Encoding, name: str, size: int | None) -> pairquality.FeatureEncoder:
    return pairquality.load_encoder(
        name,
        size=size,
        mean=command.mean,
        std=command.std,
        autocast=PRECISIONS[command.precision],
        device=resolve_device(command.device),
    )


COMMANDS: dict[type, Callable[[Any], int]] = {Fit: _fit, Ratios: _ratios, Look: _look, Distill: _distill}
