"""Export to detectron2: numpy arrays under the names of its ResNet, in the pickle that DetectionCheckpointer reads."""

import pickle
import re
from pathlib import Path
from typing import Any

from torch import nn

from genviews_core.files import atomic_write
from sslzoo.export.plain_resnet import plain_resnet, tensors_of

NAMES = (
    (r"^(?!layer)", "stem."),
    (r"^layer([1-4])\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\bbn([1-3])\.", r"conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
"""Names in torchvision, and in facebookresearch/detectron2@02b5c4e detectron2/modeling/backbone/resnet.py."""
RESNETS = {
    "resnet18": (18, 1, 64, 1),
    "resnet34": (34, 1, 64, 1),
    "resnet50": (50, 1, 64, 1),
    "resnet101": (101, 1, 64, 1),
    "resnet152": (152, 1, 64, 1),
    "wide_resnet50_2": (50, 1, 128, 1),
    "wide_resnet101_2": (101, 1, 128, 1),
    "resnext50_32x4d": (50, 32, 4, 1),
    "resnext101_32x8d": (101, 32, 8, 1),
    "resnext101_64x4d": (101, 64, 4, 1),
}
"""Depth, groups, width of a group, factor of all other widths."""


def to_detectron2(backbone: nn.Module, path: str | Path | None = None) -> dict[str, Any]:
    """Return the backbone for detectron2's ResNet with the settings of `detectron2_settings`.

    The arrays fit its bare ResNet, and under a prefix (`backbone.bottom_up.`) those of FPN and C4 models.

    Args:
        backbone: a ResNet of bottlenecks or basic blocks, of torchvision, timm or widened.
        path: .pkl file to write as well, for MODEL.WEIGHTS.

    Returns:
        The content of the pickle: `model` (arrays by name), `__author__` and `matching_heuristics`.

    Raises:
        ValueError: detectron2 has no such network.
    """
    detectron2_settings(backbone)
    arrays = {_rename(name): tensor.numpy() for name, tensor in tensors_of(backbone).items()}
    content = {"model": arrays, "__author__": "sslzoo", "matching_heuristics": True}
    if path is not None:
        atomic_write(path, pickle.dumps(content))
    return content


def detectron2_settings(backbone: nn.Module) -> dict[str, Any]:
    """Return the MODEL.RESNETS settings of the ResNet of detectron2 with the same features as the backbone.

    Raises:
        ValueError: detectron2 has no such network.
    """
    architecture = plain_resnet(backbone, "detectron2")
    name = architecture["name"]
    if "in_chans" in architecture:
        raise ValueError(
            f"expected a ResNet for RGB images for detectron2, got {name} for {architecture['in_chans']} channels"
        )
    if "cifar_stem" in architecture:
        raise ValueError(f"expected a ResNet without CIFAR stem for detectron2, got {name} with one")
    if name == "widened_resnet" and architecture["depth"] in (50, 101, 152):
        depth, groups, width, widen = architecture["depth"], 1, 64, architecture["widen"]
    elif name in RESNETS:
        depth, groups, width, widen = RESNETS[name]
    else:
        raise ValueError(f"expected a ResNet of 18, 34, 50, 101 or 152 layers for detectron2, got {name}")
    return {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width * widen,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64 * widen,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": (64 if depth < 50 else 256) * widen,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }


def _rename(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name
