"""Writing backbone folders: `backbone.safetensors` and `backbone.json`, what other programs read."""

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
    """Write a backbone, under the names of torchvision or timm, and what it is.

    Args:
        folder: made if need be.
        backbone: made by create_backbone(**architecture).
        architecture: create_backbone's arguments, `name` included, or open_official's.
        method: what trained it.
        recipe: how; `image_size`, `mean` and `std` tell what its images must look like.
        epoch: for how long; None where nobody knows.
        data: on what.

    Raises:
        ValueError: it cannot be written, or no reader would take it.
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
