"""A backbone from wherever it is: a folder of ours, an official checkpoint, or timm."""

from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from sslzoo.backbone_file import backbone_input, load_backbone
from sslzoo.official import open_official

TIMM = "timm/"


def open_backbone(source: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network in evaluation mode and what images it knows: `size` in pixels, `mean`, `std`.

    Args:
        source: a folder that save_backbone wrote, a checkpoint file that open_official reads, or
            "timm/<name>.<tag>" for weights that timm fetches ("timm/vit_small_patch16_224.dino").

    Raises:
        ValueError: it is none of these, or broken.
    """
    path = Path(source)
    if path.is_dir():
        return load_backbone(path), backbone_input(path)
    if path.is_file():
        backbone, about = open_official(path)
        recipe = about["recipe"]
        return backbone, {"size": recipe["image_size"], "mean": tuple(recipe["mean"]), "std": tuple(recipe["std"])}
    if str(source).startswith(TIMM):
        return _from_timm(str(source).removeprefix(TIMM))
    raise ValueError(f"{source} is no backbone folder, no checkpoint file, and does not begin with {TIMM}.")


def _from_timm(name: str) -> tuple[nn.Module, dict[str, Any]]:
    if not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no weights called {name}; timm.list_pretrained() names those it has.")
    network = timm.create_model(name, pretrained=True, num_classes=0)
    network.num_features = getattr(network, "head_hidden_size", network.num_features)
    images = resolve_model_data_config(network)
    return network.eval(), {"size": images["input_size"][-1], "mean": images["mean"], "std": images["std"]}
