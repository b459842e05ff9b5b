"""Which network some tensors are of: the one whose names and shapes are exactly theirs."""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from genviews_core.backbones import Architecture, create_backbone, describe
from genviews_core.backbones.names import CIFAR_RESNETS, WIDENED
from genviews_core.backbones.names import TORCHVISION_RESNETS as RESNETS
from genviews_core.backbones.widened_resnet import BLOCKS

VITS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1536: "giant"}
"""Widths of timm's vision transformers."""


def find_architecture(tensors: Mapping[str, Tensor]) -> tuple[Architecture, str]:
    """The nearest architecture, and what does not fit it.

    Args:
        tensors: a backbone's, under the names of torchvision (ResNets) or timm (vision transformers).

    Returns:
        Arguments of `create_backbone`, and "" where all names and shapes are the network's, else one line.

    Raises:
        ValueError: the tensors are of neither kind.
    """
    candidates = []
    for architecture in _candidates(tensors):
        faults = _mismatch(tensors, architecture)
        candidates.append((sum(map(len, faults.values())), architecture, describe(faults)))
        if not any(faults.values()):
            break
    _, architecture, faults = min(candidates, key=lambda candidate: candidate[0])
    return architecture, faults


def misfit(tensors: Mapping[str, Tensor], architecture: Architecture) -> str:
    """What of the tensors does not fit an architecture: "" or one line."""
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
            "timm with --architecture timm/<name> (architecture= in Python)"
        )


def _resnets(stem: Tensor) -> Iterator[Architecture]:
    width, _, side, _ = stem.shape
    cifar: Architecture = {} if side == 7 else {"cifar_stem": True}
    if (width, side) == (16, 3):
        yield from ({"name": name} for name in CIFAR_RESNETS)
    if width % 64 == 0 and width > 64:
        yield from ({"name": WIDENED, "depth": depth, "widen": width // 64} for depth in BLOCKS)
    yield from ({"name": name, **cifar} for name in RESNETS)
    yield {"name": "resnet10", "width": width, **cifar}


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
    return {"name": name, **option, "image_size": size}
