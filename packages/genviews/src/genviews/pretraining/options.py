"""Options of a pretraining run. Nothing here imports torch, so that --help is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from genviews.recipes import Recipe
from genviews.recipes.augmentations import Operation


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images and their synthetic views."""

    images: Annotated[Path, tyro.conf.arg(name="data")]
    """Folder of images, or records of images and views written by `genviews pack`."""
    views: Path | None = None
    """Generative views written by `genviews generate`."""
    interpolated: Path | None = None
    """Interpolated views with their partners, written by `genviews generate --interpolate`."""
    real_only: bool = False
    """Read only the images of records, not their views."""
    workers: int = 0
    """Processes that decode images, or threads for records; 0 decodes in the main process."""
    cache_gb: float = 1.0
    """Maximum size of the cache of decoded images, for folders."""
    value_range: tuple[float, ...] | None = None
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; default: range of each image, or
    with --channels that of each channel in a sample; also LOW HIGH of each channel."""
    channels: int = 3
    """Channels of the images: 3 for RGB, 1 for gray, or those of multi-band TIFFs."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel for values in [0, 1]; default: the recipe's, or with --channels measured on a sample."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, likewise."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Execution and diagnostics of a training; no option changes the trained encoder, up to rounding."""

    compile: bool = False
    """Use torch.compile for backbones and heads."""
    fused: bool = False
    """Use the fused kernel of the optimizer (sgd and adamw)."""
    accumulation_steps: int = 1
    """Number of gradient accumulation steps: parts into which each batch is split."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of storing them (vision transformers)."""

    probe: bool = True
    """Train a linear probe along with the encoder if the images have labels; it does not affect the encoder."""
    knn_test: Path | None = None
    """Labeled test images, one folder per class, for kNN accuracy during training."""
    knn_train: Path | None = None
    """Labeled training images for kNN; default: --data, which must then be a folder."""
    knn_every: int = 10
    """Epochs between kNN evaluations; the last epoch is always evaluated."""
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device, for MFU; default: that of the known device."""
    wandb: str | None = None
    """Weights & Biases project for metrics."""


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Files for --pair-weighting exact and --pair-weighting distilled."""

    encoder: str | None = None
    """For exact: encoder of the PCA, if it is no longer where `pairquality fit` found it."""
    pca: Path | None = None
    """For exact: file written by `pairquality fit`."""
    scorer: Path | None = None
    """For distilled: file written by `pairquality distill`."""


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """One encoder trained with one recipe."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": ("interpolated", "real_only", "decode_size", "workers", "cache_gb"),
        "channels": ("channels", "value_range", "mean", "std"),
        "views": ("policy", "view_probability", "synthetic_crops", "drop_augmentations"),
        "optimizer": (
            *("optimizer", "lr_scaling", "final_lr", "final_lr_ratio", "weight_decay", "final_weight_decay"),
            *("warmup_epochs", "warmup_includes_peak", "per_param_clip_norm", "clip_grad_norm"),
        ),
        "pair-weighting": ("gamma", "encoder", "pca", "scorer", "quality_layer", "pca_interval"),
        "logging": ("probe", "knn_test", "knn_train", "knn_every", "peak_tflops", "wandb"),
        "execution": (
            *("precision", "compile", "fused", "accumulation_steps", "checkpoint_activations"),
            "checkpoint_seconds",
        ),
    }

    data: Annotated[DataConfig, tyro.conf.arg(name="")]
    out: Path
    """Folder of the run: resume.pt, log.jsonl, TensorBoard events, backbone/."""
    weights: str | None = None
    """Initial weights: a backbone folder, a checkpoint file, timm/NAME or torchvision/NAME; try a tenth of --lr."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    quality: Annotated[QualityConfig, tyro.conf.arg(name="")] = field(default_factory=QualityConfig)
    runtime: Annotated[RuntimeConfig, tyro.conf.arg(name="")] = field(default_factory=RuntimeConfig)
    drop_augmentations: tuple[Operation, ...] = ()
    """Operations to leave out of the augmentations of the recipe."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes what there is."""
    checkpoint_seconds: float = 600.0
    """Seconds between checkpoints."""


def check_values(recipe: Recipe, data: DataConfig) -> None:
    """Check numeric options before any file is opened.

    Raises:
        ValueError: a value is out of its range, or NaN.
    """
    for option, value, least, most in (
        ("--epochs", recipe.epochs, 0, inf),
        ("--batch-size", recipe.batch_size, 1, inf),
        ("--lr", recipe.base_lr, 0, inf),
        ("--weight-decay", recipe.weight_decay, 0, inf),
        ("--warmup-epochs", recipe.warmup_epochs, 0, inf),
        ("--view-probability", recipe.view_probability, 0, 1),
        ("--workers", data.workers, 0, inf),
        ("--cache-gb", data.cache_gb, 0, inf),
    ):
        if not (isfinite(value) and least <= value <= most):
            wanted = f"of {least} or more" if most == inf else f"from {least} to {most:g}"
            raise ValueError(f"expected {option} {wanted}, got {value}; leave it out for the default")
    from genviews_core.channels import check_channels, ranges_of  # not imported for --help

    check_channels(data.channels)
    ranges_of(data.value_range, data.channels)
    for option, values in (("--mean", data.mean), ("--std", data.std)):
        if values is not None and (len(values) != data.channels or not all(map(isfinite, values))):
            raise ValueError(
                f"expected {option} of {data.channels} numbers, got {values}; leave it out for the default"
            )
    if (data.mean is None) != (data.std is None):
        raise ValueError("expected both --mean and --std, got one of them; leave both out for the default")
    if data.std is not None and min(data.std) <= 0:
        raise ValueError(f"expected --std above 0, got {data.std}; leave it out for the default")
