"""Augmentations shared by several recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from genviews.recipes.recipe import AugmentationConfig, Recipe
from pairdata import Augment

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""vturrisi/solo-learn@9187ea3 solo/data/pretrain_dataloader.py."""
NOT_NORMALIZED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""google-research/simclr@383d414 data_util.py leaves pixels in [0, 1]."""

BYOL_JITTER = (0.4, 0.4, 0.2, 0.1)
FULL_JITTER = (0.8, 0.8, 0.8, 0.2)


def symmetric(first: Augment, second: Augment | None = None, **local: Any) -> AugmentationConfig:
    """Return the configuration of two global views; by default both have the same augmentations."""
    return AugmentationConfig(first=first, second=second or first, **local)


def asymmetric(plain: Augment, *, blur: tuple[float, float] = (1.0, 0.1), **local: Any) -> AugmentationConfig:
    """Return the augmentations of BYOL, MoCo v3, VICReg, Barlow Twins and DINO: one view blurred, the other solarized.

    Jitter 0.4/0.4/0.2/0.1, blur with probability 1.0 and 0.1, solarize 0 and 0.2: facebookresearch/moco-v3@c349e6e
    main_moco.py, facebookresearch/vicreg@4e12602 augmentations.py, facebookresearch/barlowtwins@8e8d284 main.py,
    facebookresearch/dino@7c446df main_dino.py.
    """
    first = replace(plain, jitter=BYOL_JITTER, blur_p=blur[0])
    return symmetric(first, replace(first, blur_p=blur[1], solarize_p=0.2), **local)


def cifar_augment(**changes: Any) -> Augment:
    """Return GenView's augmentation at 32 px (arXiv 2403.12003): area 0.2 to 1, jitter 0.4, gray 0.2, blur 0.5."""
    plain = Augment(size=32, crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), mean=CIFAR_MEAN, std=CIFAR_STD)
    return replace(plain, **changes)


def imagenet_augment(**changes: Any) -> Augment:
    """Return the augmentation of MoCo v2, SimSiam and GenView (facebookresearch/moco@132aea9 main_moco.py)."""
    return replace(Augment(size=224, crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1)), **changes)


def dino_cifar_views(**changes: Any) -> AugmentationConfig:
    """Return DINO's two augmentations at 32 px, with half the blur and larger crops."""
    return asymmetric(cifar_augment(crop_scale=(0.3, 1.0), **changes), blur=(0.5, 0.1))


def multi_crop(global_view: Augment, *, count: int, scale: tuple[float, float], size: int = 96) -> dict[str, Any]:
    """Return `local` and `local_count` of `AugmentationConfig`: small crops, otherwise augmented as a global view."""
    return {"local": replace(global_view, size=size, crop_scale=scale), "local_count": count}


Operation = Literal["crop", "flip", "jitter", "gray", "blur", "solarize"]
DISABLED: dict[Operation, dict[str, Any]] = {
    "crop": {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)},
    "flip": {"flip": 0.0},
    "jitter": {"jitter": None},
    "gray": {"gray_p": 0.0},
    "blur": {"blur_p": 0.0},
    "solarize": {"solarize_p": 0.0},
}


def drop_augmentations(views: AugmentationConfig, operations: Sequence[Operation]) -> AugmentationConfig:
    """Return the configuration without some operations; without crop, a view is the central square of the image."""
    changes = {name: value for operation in operations for name, value in DISABLED[operation].items()}
    first, second = (replace(each, **changes) for each in (views.first, views.second))
    return replace(views, first=first, second=second, local=views.local and replace(views.local, **changes))


def normalize(
    recipe: Recipe,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    change: Callable[[Augment], Augment] = lambda augment: augment,
) -> Recipe:
    """Return the recipe with another normalization in all augmentations.

    Args:
        recipe: the recipe.
        mean: mean of each channel.
        std: standard deviation of each channel.
        change: applied to each list of augmentations first.
    """
    plan = recipe.augmentation
    first, second = (replace(change(each), mean=mean, std=std) for each in (plan.first, plan.second))
    local = plan.local and replace(change(plan.local), mean=mean, std=std)
    return replace(recipe, augmentation=replace(plan, first=first, second=second, local=local))
