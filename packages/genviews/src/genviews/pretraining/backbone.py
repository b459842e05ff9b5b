"""Adapt a recipe to the network given by --backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import timm
import torch

import sslzoo
from genviews.recipes import Recipe
from genviews_core.backbones import channels_of, first_line
from genviews_core.backbones.fields import options_of
from genviews_core.backbones.names import TIMM


def fit_backbone(recipe: Recipe, log: Callable[[str], None]) -> Recipe:
    """Adapt the options of a recipe to its backbone, which may differ from the default one.

    Options that the network does not have are dropped. Fixed-size timm networks get `dynamic_img_size` if the recipe
    has crops of several sizes.

    Args:
        recipe: the recipe with the given backbone.
        log: called with a message about dropped options.

    Raises:
        ValueError: the network does not exist, or does not support the crop sizes of the recipe.
    """
    try:
        known = options_of(recipe.backbone)
    except ValueError:
        sslzoo.create_backbone(recipe.backbone)  # its error suggests similar names
        raise
    options = {name: value for name, value in recipe.backbone_options.items() if name in known}
    dropped = ", ".join(name for name in recipe.backbone_options if name not in options)
    if dropped:
        log(f"{recipe.backbone} has no option {dropped}, set by {recipe.name}; ignored")
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
    """Check each crop size with a forward pass on the meta device."""
    with torch.device("meta"):
        network = sslzoo.create_backbone(**recipe.architecture).eval()
        for size in recipe.crop_sizes:
            try:
                network(torch.empty(2, channels_of(recipe.architecture), size, size))
            except NotImplementedError:  # not supported on the meta device; the first step will show errors
                return
            except (AssertionError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"expected a backbone that takes crops of {size} px for {recipe.name}, got {recipe.backbone} "
                    f"({first_line(error)}); choose another --backbone or a recipe with larger crops"
                ) from None
