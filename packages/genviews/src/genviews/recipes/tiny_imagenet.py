"""Tiny ImageNet at 64 px as GenView trains it: ResNet-18 with a 3 x 3 stem and no pooling after it."""

from __future__ import annotations

from dataclasses import replace

from genviews.recipes.augmentations import imagenet_augment, symmetric
from genviews.recipes.cifar import genview_byol, genview_moco_v2
from genviews.recipes.recipe import Recipe

SHORTER = {"epochs": 200, "batch_size": 256, "base_batch_size": 256, "decode_size": 64, "dataset": "Tiny ImageNet"}


def tiny_imagenet_moco_v2() -> Recipe:
    """MoCo v2 at 64 px: 200 epochs, batch 256, queue 16384; published 56.76 with views (GenView). Not yet run."""
    return replace(
        genview_moco_v2(),
        **SHORTER,
        name="tiny-imagenet-moco-v2",
        method_options={"queue_size": 16384, "momentum": 0.996, "temperature": 0.2, "splits": 8},
        augmentation=symmetric(imagenet_augment(size=64)),
        expected="linear 56.76 with views (GenView)",
    )


def tiny_imagenet_byol() -> Recipe:
    """BYOL at 64 px: 200 epochs, batch 256, momentum 0.996; published 54.79 with views (GenView). Not yet run."""
    return replace(
        genview_byol(),
        **SHORTER,
        name="tiny-imagenet-byol",
        method_options={"projection_dim": 128, "momentum": 0.996},
        augmentation=symmetric(imagenet_augment(size=64)),
        expected="linear 54.79 with views (GenView)",
    )
