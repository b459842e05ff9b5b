"""Training recipes: functions that return a frozen `Recipe`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable

from genviews.recipes import cifar, imagenet, imagenet100, imagenet_genview, small, tiny_imagenet
from genviews.recipes.augmentations import CIFAR_MEAN, CIFAR_STD
from genviews.recipes.recipe import METHODS, AugmentationConfig, Recipe, method_class
from genviews.suggestions import suggest

__all__ = [
    "CIFAR_MEAN",
    "CIFAR_STD",
    "METHODS",
    "RECIPES",
    "AugmentationConfig",
    "Recipe",
    "get_recipe",
    "method_class",
]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "small-simclr": small.small_simclr,
    "small-moco-v2": small.small_moco_v2,
    "small-moco-v3": small.small_moco_v3,
    "small-simsiam": small.small_simsiam,
    "small-byol": small.small_byol,
    "small-swav": small.small_swav,
    "small-vicreg": small.small_vicreg,
    "small-barlow-twins": small.small_barlow_twins,
    "small-dino": small.small_dino,
    "small-gen-dino": small.small_gen_dino,
    "cifar10-simclr": cifar.cifar10_simclr,
    "cifar10-moco-v2": cifar.genview_moco_v2,
    "cifar10-moco-v3": cifar.cifar10_moco_v3,
    "cifar10-simsiam": cifar.cifar10_simsiam,
    "cifar10-byol": cifar.genview_byol,
    "cifar10-swav": cifar.cifar10_swav,
    "cifar10-vicreg": cifar.cifar10_vicreg,
    "cifar10-barlow-twins": cifar.cifar10_barlow_twins,
    "cifar10-dino": cifar.cifar10_dino,
    "cifar10-gen-dino": cifar.cifar10_gen_dino,
    "cifar100-moco-v2": cifar.cifar100_moco_v2,
    "cifar100-byol": cifar.cifar100_byol,
    "tiny-imagenet-moco-v2": tiny_imagenet.tiny_imagenet_moco_v2,
    "tiny-imagenet-byol": tiny_imagenet.tiny_imagenet_byol,
    "imagenet100-moco-v3": imagenet100.imagenet100_moco_v3,
    "imagenet-simclr": imagenet.imagenet_simclr,
    "imagenet-moco-v2": imagenet_genview.imagenet_moco_v2,
    "imagenet-moco-v3": imagenet_genview.imagenet_moco_v3,
    "imagenet-moco-v3-300": imagenet_genview.imagenet_moco_v3_300,
    "imagenet-moco-v3-vit-s": imagenet_genview.imagenet_moco_v3_vit_s,
    "imagenet-moco-v3-vit-b": imagenet_genview.imagenet_moco_v3_vit_b,
    "imagenet-simsiam": imagenet_genview.imagenet_simsiam,
    "imagenet-byol": imagenet_genview.imagenet_byol,
    "imagenet-swav": imagenet_genview.imagenet_swav,
    "imagenet-vicreg": imagenet.imagenet_vicreg,
    "imagenet-barlow-twins": imagenet.imagenet_barlow_twins,
    "imagenet-dino": imagenet.imagenet_dino,
    "imagenet-gen-dino": imagenet.imagenet_gen_dino,
}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        ValueError: there is no such recipe; the message suggests similar names.
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe, got {name!r}; {suggest(name, RECIPES, otherwise='--list shows them')}")
    return RECIPES[name]()
