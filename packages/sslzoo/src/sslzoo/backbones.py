"""Save backbones as folders, resolve them from any source, and infer architectures from tensors."""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genviews_core.backbones import (
    DESCRIPTION,
    FORMAT,
    TENSORS,
    Architecture,
    backbone_hash,
    backbone_input,
    build_described,
    channels_of,
    check_images,
    create_backbone,
    describe,
    described,
    images_of,
    load_backbone,
    load_timm,
    read_description,
)
from genviews_core.backbones.names import CIFAR_RESNETS, TIMM, WIDE_CHANNEL_BLOCKS, WIDENED
from genviews_core.backbones.names import TORCHVISION_RESNETS as RESNETS
from genviews_core.files import write_json
from genviews_core.tensor_files import save_tensors

__all__ = [
    "backbone_hash",
    "backbone_input",
    "create_backbone",
    "infer_architecture",
    "load_backbone",
    "resolve_backbone",
    "save_backbone",
    "shape_mismatch",
]

VITS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1536: "giant"}
"""Widths of timm's vision transformers."""


def save_backbone(
    folder: str | Path,
    backbone: nn.Module,
    *,
    architecture: Mapping[str, Any],
    method: str,
    recipe: Mapping[str, Any],
    epoch: int | None,
    data: str,
) -> None:
    """Write `backbone.safetensors`, with torchvision's or timm's tensor names, and `backbone.json`.

    Args:
        folder: created if it does not exist.
        backbone: network from create_backbone(**architecture).
        architecture: arguments of create_backbone including `name`, or those from load_official_checkpoint.
        method: method that trained it.
        recipe: training settings; `image_size`, `mean` and `std` define the preprocessing of its input images.
        epoch: number of training epochs; None if unknown.
        data: training data.

    Raises:
        ValueError: the folder cannot be written, or the description is invalid.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    check_images(recipe, channels_of(architecture))
    description = {
        "format": FORMAT,
        "architecture": described(architecture),
        "method": method,
        "recipe": recipe,
        "epoch": epoch,
        "data": data,
        "hash": backbone_hash(backbone),
        "versions": {name: version(name) for name in ("sslzoo", "torch", "torchvision", "timm")},
    }
    save_tensors(folder / TENSORS, tensors)
    write_json(folder / DESCRIPTION, description)


def resolve_backbone(source: str | Path, *, channels: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Load a backbone from any source.

    Args:
        source: a folder written by save_backbone, a checkpoint file that load_official_checkpoint reads, or
            "timm/<name>.<tag>" for weights that timm downloads ("timm/vit_small_patch16_224.dino").
        channels: channels of the images; None for those of the source. timm's weights are adapted to other than three.

    Returns:
        The network in evaluation mode, and the preprocessing of its images: `size` in pixels, `mean` and `std` per
        channel, and `value_range` if a folder records it.

    Raises:
        ValueError: the source is none of these, damaged, or takes images of another number of channels.
    """
    backbone, images = _resolve(source, channels)
    if channels is not None and channels != (own := len(images["mean"])):
        raise ValueError(
            f"expected a backbone for images of {channels} channels, got {source} for {own}; leave --channels out"
        )
    return backbone, images


def _resolve(source: str | Path, channels: int | None) -> tuple[nn.Module, dict[str, Any]]:
    path = Path(source)
    if path.is_dir():
        about = read_description(path)
        return build_described(about), images_of(about)
    if path.is_file():
        from sslzoo.official import load_official_checkpoint

        backbone, about = load_official_checkpoint(path)
        recipe = about["recipe"]
        return backbone, {"size": recipe["image_size"], "mean": tuple(recipe["mean"]), "std": tuple(recipe["std"])}
    if str(source).startswith(TIMM):
        return load_timm(str(source).removeprefix(TIMM), channels=channels or 3)
    raise ValueError(f"expected a backbone folder, a checkpoint file or {TIMM}<name>, got {source}; check the path")


def infer_architecture(tensors: Mapping[str, Tensor]) -> tuple[Architecture, str]:
    """Return the closest architecture, and how the tensors differ from it.

    Args:
        tensors: a backbone's, under the names of torchvision (ResNets) or timm (vision transformers).

    Returns:
        Arguments of `create_backbone`, and "" if all names and shapes match, otherwise one line.

    Raises:
        ValueError: the tensors are neither of a ResNet nor of a vision transformer.
    """
    candidates = []
    for architecture in _candidates(tensors):
        faults = _mismatch(tensors, architecture)
        candidates.append((sum(map(len, faults.values())), architecture, describe(faults)))
        if not any(faults.values()):
            break
    _, architecture, faults = min(candidates, key=lambda candidate: candidate[0])
    return architecture, faults


def shape_mismatch(tensors: Mapping[str, Tensor], architecture: Architecture) -> str:
    """Return how names and shapes of the tensors differ from an architecture: "" or one line."""
    return describe(_mismatch(tensors, architecture))


def _mismatch(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, list[str]]:
    own = _shapes(tuple(sorted(architecture.items())))
    wrong = [name for name, tensor in tensors.items() if name in own and own[name] != tensor.shape]
    return {
        "missing": [name for name in own if name not in tensors],
        "unknown": [name for name in tensors if name not in own],
        "wrong shape": [f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name])}" for name in wrong],
    }


@cache
def _shapes(architecture: tuple[tuple[str, Any], ...]) -> dict[str, torch.Size]:
    with torch.device("meta"):  # names and shapes without memory
        network = create_backbone(**dict(architecture))
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[Architecture]:
    if "conv1.weight" in tensors:
        yield from _resnets(tensors["conv1.weight"])
    elif "patch_embed.proj.weight" in tensors and "pos_embed" in tensors:
        yield _transformer(tensors)
    else:
        stem = next((name for name in tensors if name.startswith("patch_embed.proj.")), None)
        reason = f"{stem} belongs to a convolutional stem" if stem else f"it has {', '.join(list(tensors)[:3])}"
        raise ValueError(
            f"is neither a ResNet of torchvision nor a vision transformer of timm: {reason}; name another network of "
            "timm, timm/<name>, with --architecture (architecture= in Python)"
        )


def _resnets(stem: Tensor) -> Iterator[Architecture]:
    width, channels, kernel_size, _ = stem.shape
    cifar: Architecture = {} if kernel_size == 7 else {"cifar_stem": True}
    other: Architecture = {} if channels == 3 else {"in_chans": channels}
    if (width, kernel_size) == (16, 3):
        yield from ({"name": name, **other} for name in CIFAR_RESNETS)
    if width % 64 == 0 and width > 64:
        yield from ({"name": WIDENED, "depth": depth, "widen": width // 64, **other} for depth in WIDE_CHANNEL_BLOCKS)
    yield from ({"name": name, **cifar, **other} for name in RESNETS)
    yield {"name": "resnet10", "width": width, **cifar, **other}


def _transformer(tensors: Mapping[str, Tensor]) -> Architecture:
    width, patch = tensors["patch_embed.proj.weight"].shape[0], tensors["patch_embed.proj.weight"].shape[-1]
    if width not in VITS:
        known = ", ".join(f"{width} ({name})" for width, name in VITS.items())
        raise ValueError(f"is a vision transformer of width {width}; the known ones are {known}")
    size = patch * math.isqrt(tensors["pos_embed"].shape[1])
    option: Architecture = {}
    if "blocks.0.ls1.gamma" in tensors and patch == 14:
        name = f"timm/vit_{VITS[width]}_patch14_{'reg4_' if 'reg_token' in tensors else ''}dinov2"
    else:
        name = f"timm/vit_{VITS[width]}_patch16_224"
        option = {} if patch == 16 else {"patch_size": patch}
    channels = tensors["patch_embed.proj.weight"].shape[1]
    other: Architecture = {} if channels == 3 else {"in_chans": channels}
    return {"name": name, **option, **other, "image_size": size}
