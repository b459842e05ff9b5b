"""Write backbone folders: `backbone.safetensors` and `backbone.json`."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from genviews_core.backbones import DESCRIPTION, FORMAT, TENSORS, backbone_hash, check_images, described
from genviews_core.files import write_json
from genviews_core.tensor_files import save_tensors


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
    """Write a backbone, with torchvision's or timm's tensor names, and its description.

    Args:
        folder: created if it does not exist.
        backbone: network from create_backbone(**architecture).
        architecture: arguments of create_backbone including `name`, or those returned by open_official.
        method: method that trained it.
        recipe: training settings; `image_size`, `mean` and `std` define the preprocessing of its input images.
        epoch: number of training epochs; None if unknown.
        data: training data.

    Raises:
        ValueError: the folder cannot be written, or the description is invalid.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    check_images(recipe)
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
