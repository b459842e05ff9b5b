"""detectron2's form: its ResNet's names, numpy arrays, in the pickle that DetectionCheckpointer reads."""

import pickle
import re
from pathlib import Path
from typing import Any

from torch import nn

from genviews_core.files import atomic_write
from sslzoo.export.plain_resnet import plain_resnet
from sslzoo.export.same_features import tensors_of

NAMES = (
    (r"^(?!layer)", "stem."),
    (r"^layer([1-4])\.", lambda found: f"res{int(found[1]) + 1}."),
    (r"\bbn([1-3])\.", r"conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
"""torchvision's names, and those of facebookresearch/detectron2@02b5c4e detectron2/modeling/backbone/resnet.py."""
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
    """The backbone for detectron2's ResNet, whose settings must be those of `detectron2_settings`.

    The arrays fit its bare ResNet, and under a prefix (`backbone.bottom_up.`) the ones in FPN and C4 models.

    Args:
        backbone: a ResNet of bottlenecks or basic blocks, of torchvision, timm or widened.
        path: write the pickle here, for MODEL.WEIGHTS; call it .pkl.

    Returns:
        What the pickle holds: `model`, arrays by name; `__author__`; `matching_heuristics`, on.

    Raises:
        ValueError: detectron2's ResNet cannot be this network.
    """
    detectron2_settings(backbone)
    arrays = {_rename(name): tensor.numpy() for name, tensor in tensors_of(backbone).items()}
    content = {"model": arrays, "__author__": "sslzoo", "matching_heuristics": True}
    if path is not None:
        atomic_write(path, pickle.dumps(content))
    return content


def detectron2_settings(backbone: nn.Module) -> dict[str, Any]:
    """The MODEL.RESNETS settings under which detectron2's ResNet computes what the backbone does.

    Raises:
        ValueError: there are none.
    """
    architecture = plain_resnet(backbone, "detectron2")
    name = architecture["name"]
    if "cifar_stem" in architecture:
        raise ValueError(f"detectron2's ResNet has no CIFAR stem, which this {name} has.")
    if name == "widened_resnet" and architecture["depth"] in (50, 101, 152):
        depth, groups, width, widen = architecture["depth"], 1, 64, architecture["widen"]
    elif name in RESNETS:
        depth, groups, width, widen = RESNETS[name]
    else:
        raise ValueError(f"detectron2's ResNet has 18, 34, 50, 101 or 152 layers; {name} is none of these.")
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
