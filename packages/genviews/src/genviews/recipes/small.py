"""Recipes of every method for a laptop: a narrow ResNet-10 at 32 px, small heads, 20 epochs of AdamW.

The expected results are for three epochs of 5,000 CIFAR-10 images (117 steps, seed 0, no views): kNN accuracy (k = 20)
on 5,000 test images; that of the untrained encoder is 29.2. Measured by `benchmarks/ablations sanity-check`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from genviews.recipes.augmentations import asymmetric, cifar_augment, dino_cifar_views, multi_crop, symmetric
from genviews.recipes.recipe import NOT_YET_RUN, AugmentationConfig, MethodName, Recipe

MEASURED: dict[str, str] = {
    "simclr": "38.5",
    "moco-v2": "32.1",
    "moco-v3": "35.8",
    "simsiam": "31.2",
    "byol": "30.4, after 6 epochs 31.6",
    "swav": "31.5",
    "vicreg": "34.3",
    "barlow-twins": "33.0",
    "dino": "30.4, after 5 epochs 32.9",
}


def _small(method: MethodName, views: AugmentationConfig, options: dict[str, Any], **changes: Any) -> Recipe:
    """Return a recipe with the constants that all small recipes share."""
    shared = Recipe(
        name=f"small-{method}",
        method=method,
        method_options=options,
        augmentation=views,
        dataset="any, 32 px",
        expected=f"kNN {MEASURED[method]} (here, 3 epochs)",
        backbone="resnet10",
        backbone_options={"cifar_stem": True, "stem_stride": 2, "width": 32},
        quality_layer="layer3",
        epochs=20,
        batch_size=128,
        optimizer="adamw",
        base_lr=2e-3,
        base_batch_size=128,
        final_lr=1e-6,
        weight_decay=1e-4,
        warmup_epochs=1.0,
    )
    return replace(shared, **changes)


def small_dino() -> Recipe:
    """DINO for a laptop: a narrow ResNet-10 at 32 px."""
    options = {
        "out_dim": 512,
        "hidden_dim": 512,
        "bottleneck_dim": 128,
        "head_batch_norm": True,
        "momentum": 0.95,
        "freeze_fraction": 0.05,
    }
    return _small("dino", dino_cifar_views(), options, per_param_clip_norm=3.0)


def small_gen_dino() -> Recipe:
    """Gen-DINO for a laptop: small-dino with the disentanglement term."""
    return replace(small_dino(), name="small-gen-dino", method="gen-dino", policy="gensis", expected=NOT_YET_RUN)


def small_simclr() -> Recipe:
    """SimCLR for a laptop."""
    return _small("simclr", symmetric(cifar_augment(blur_p=0.0)), {"projector_layers": 2, "temperature": 0.2})


def small_moco_v2() -> Recipe:
    """MoCo v2 for a laptop: a queue of 1024, and a momentum of 0.95 because there are few steps."""
    options = {"queue_size": 1024, "momentum": 0.95, "temperature": 0.2, "symmetric": True, "splits": 8}
    return _small("moco-v2", symmetric(cifar_augment(blur_p=0.0)), options)


def small_moco_v3() -> Recipe:
    """MoCo v3 for a laptop."""
    options = {"hidden_dim": 512, "projection_dim": 128, "temperature": 0.2, "momentum": 0.95}
    return _small("moco-v3", asymmetric(cifar_augment(), blur=(0.0, 0.0)), options)


def small_simsiam() -> Recipe:
    """SimSiam for a laptop."""
    options = {"projection_dim": 512, "prediction_dim": 128, "projector_layers": 2}
    return _small("simsiam", symmetric(cifar_augment(blur_p=0.0)), options)


def small_byol() -> Recipe:
    """BYOL for a laptop."""
    options = {"hidden_dim": 512, "projection_dim": 128, "momentum": 0.95}
    return _small("byol", asymmetric(cifar_augment(), blur=(0.0, 0.0)), options)


def small_swav() -> Recipe:
    """SwAV for a laptop: two global crops and two local ones of 16 px."""
    options = {"prototypes": 100, "hidden_dim": 256, "projection_dim": 128, "freeze_fraction": 0.05}
    full = cifar_augment(crop_scale=(0.3, 1.0), blur_p=0.0)
    views = symmetric(full, **multi_crop(full, count=2, scale=(0.1, 0.3), size=16))
    return _small("swav", views, options)


def small_vicreg() -> Recipe:
    """VICReg for a laptop."""
    views = asymmetric(cifar_augment(), blur=(0.0, 0.0))
    return _small("vicreg", views, {"expander": (512, 512, 512)})


def small_barlow_twins() -> Recipe:
    """Barlow Twins for a laptop."""
    views = asymmetric(cifar_augment(), blur=(0.0, 0.0))
    return _small("barlow-twins", views, {"projector": (512, 512, 512)})
