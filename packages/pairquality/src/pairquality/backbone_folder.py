"""Backbone folders as encoders: their networks up to the last map."""

import warnings
from pathlib import Path

from torch import nn

from genviews_core.backbones import build_described, images_of, last_map, read_description
from pairquality.recipe import Recipe


def backbone_recipe(folder: Path, size: int | None, *, normalised: bool = False) -> Recipe:
    """The network that a folder describes, with its weights.

    Args:
        folder: holds backbone.json and backbone.safetensors.
        size: of its images; without it the recipe's image_size.
        normalised: mean and std are known otherwise.

    Raises:
        ValueError: a file is missing or broken, the two do not belong together, or the network takes no such size.
    """
    about = read_description(folder)
    module = build_described(about)
    with warnings.catch_warnings():
        if normalised:
            warnings.simplefilter("ignore")
        images = images_of(about)
    if size not in (None, images["size"]) and _one_size(module):
        raise ValueError(f"{folder} holds a network for images of {images['size']} px alone: leave size out.")
    mean, std = images["mean"], images["std"]
    return Recipe(module=module, size=size or images["size"], mean=mean, std=std, take_map=last_map)


def _one_size(module: nn.Module) -> bool:
    """Vision transformers of timm take images of the size they were built for, unless they were told to take any."""
    config = getattr(module, "pretrained_cfg", {})
    return bool(config.get("fixed_input_size")) and not getattr(module, "dynamic_img_size", False)
