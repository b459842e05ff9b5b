"""Load backbone folders as encoders: their networks up to the last feature map."""

import warnings
from pathlib import Path

from torch import nn

from genviews_core.backbones import build_described, images_of, last_map, read_description
from pairquality.recipe import Recipe


def backbone_recipe(folder: Path, size: int | None, *, normalised: bool = False) -> Recipe:
    """The network that a folder describes, with its weights.

    Args:
        folder: folder with backbone.json and backbone.safetensors.
        size: image size in pixels; by default the recipe's image_size.
        normalised: whether the caller provides mean and std, so that no warning about them is needed.

    Raises:
        ValueError: a file is missing or broken, the two do not belong together, or the network does not take the size.
    """
    about = read_description(folder)
    module = build_described(about)
    with warnings.catch_warnings():
        if normalised:
            warnings.simplefilter("ignore")
        images = images_of(about)
    if size not in (None, images["size"]) and _has_fixed_size(module):
        raise ValueError(f"{folder} holds a network only for images of {images['size']} px: leave size out.")
    mean, std = images["mean"], images["std"]
    return Recipe(module=module, size=size or images["size"], mean=mean, std=std, take_map=last_map)


def _has_fixed_size(module: nn.Module) -> bool:
    """Return whether the network takes images of one size only, as timm's vision transformers do by default."""
    config = getattr(module, "pretrained_cfg", {})
    return bool(config.get("fixed_input_size")) and not getattr(module, "dynamic_img_size", False)
