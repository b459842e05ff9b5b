"""ImageNet-100 (the 100 classes of arXiv 1906.05849): GenView's ablation."""

from __future__ import annotations

from genviews.recipes.augmentations import asymmetric, imagenet_augment
from genviews.recipes.recipe import Recipe


def imagenet100_moco_v3() -> Recipe:
    """MoCo v3, ResNet-18, 100 epochs on IN-100; published 65.52 linear, 75.40 with views and weights. Not yet run.

    LARS 1.2 at batch 512, weight decay 1e-6: GenView's ablation (arXiv 2403.12003, section 4.2); the rest is
    imagenet-moco-v3. With pair weights: `--pair-weighting exact --pca FILE`; with views alone 73.96 (adaptive noise).
    """
    return Recipe(
        name="imagenet100-moco-v3",
        method="moco-v3",
        dataset="ImageNet-100",
        augmentation=asymmetric(imagenet_augment()),
        decode_size=288,
        expected="linear 65.52, with views 73.96, and weights 75.40 (GenView)",
        epochs=100,
        batch_size=512,
        optimizer="lars",
        base_lr=0.6,
        weight_decay=1e-6,
        warmup_epochs=10.0,
    )
