"""The network that --backbone names, with those of the recipe's options that it has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import timm
import torch

import sslzoo
from genviews_core.backbones import first_line
from genviews_core.backbones.fields import options_of
from genviews_core.backbones.names import TIMM
from recipes import Recipe


def fit_backbone(recipe: Recipe, say: Callable[[str], None]) -> Recipe:
    """The recipe, for the backbone that it names now, which need not be the one it was made for.

    Options that the network does not have are left out. A network of timm that takes images of one size is told to take
    any where crops have several.

    Args:
        recipe: what was asked for.
        say: told what is left out.

    Raises:
        ValueError: the network does not exist, or cannot take the recipe's crops.
    """
    try:
        known = options_of(recipe.backbone)
    except ValueError:
        sslzoo.create_backbone(recipe.backbone)  # its error names those that are spelled like it
        raise
    options = {name: value for name, value in recipe.backbone_options.items() if name in known}
    without = ", ".join(name for name in recipe.backbone_options if name not in options)
    if without:
        say(f"{recipe.backbone} has no {without}, which {recipe.name} gives its own network: left out")
    if not recipe.backbone.startswith(TIMM):
        return replace(recipe, backbone_options=options)
    if len(recipe.crop_sizes) > 1 and _fixed_size(recipe.backbone):
        options = {"dynamic_img_size": True, **options}
    recipe = replace(recipe, backbone_options=options)
    _require_crops(recipe)
    return recipe


def _fixed_size(backbone: str) -> bool:
    config = timm.get_pretrained_cfg(backbone.removeprefix(TIMM), allow_unregistered=True)
    return config is not None and config.fixed_input_size


def _require_crops(recipe: Recipe) -> None:
    """Send crops of each size through the network, without memory or arithmetic."""
    with torch.device("meta"):
        network = sslzoo.create_backbone(**recipe.architecture).eval()
        for size in recipe.crop_sizes:
            try:
                network(torch.empty(2, 3, size, size))
            except NotImplementedError:  # what cannot be done without memory shows in the first step
                return
            except (AssertionError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"expected a backbone that takes crops of {size} px for {recipe.name}, got {recipe.backbone} "
                    f"({first_line(error)}); choose another --backbone or a recipe with larger crops"
                ) from None
