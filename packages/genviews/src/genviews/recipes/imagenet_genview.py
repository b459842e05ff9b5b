"""ImageNet-1k: every column of GenView's table 9.

GenView's figures: arXiv 2403.12003, linear top-1, without and with views. Its SimSiam trains in float32, as the sources
of its MoCo v2 and BYOL do; all recipes here default to bf16.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from genviews.recipes.augmentations import FULL_JITTER, asymmetric, imagenet_augment, multi_crop, symmetric
from genviews.recipes.recipe import Recipe

SHARED: dict[str, Any] = {"dataset": "ImageNet-1k", "backbone": "resnet50", "decode_size": 288}


def imagenet_moco_v2() -> Recipe:
    """MoCo v2, ResNet-50, 200 epochs on ImageNet-1k; published 67.5 linear, 70.0 with views (GenView). Not yet run.

    SGD 0.03 at batch 256, weight decay 1e-4: GenView table 9, facebookresearch/moco@132aea9 README.md, which trains on
    8 GPUs with batch norm per GPU; with fewer processes, batch norm is split into 8.
    """
    return Recipe(
        **SHARED,
        name="imagenet-moco-v2",
        method="moco-v2",
        method_options={"splits": 8},
        augmentation=symmetric(imagenet_augment()),
        expected="linear 67.5, with views 70.0 (GenView)",
        epochs=200,
        batch_size=256,
        base_lr=0.03,
        weight_decay=1e-4,
    )


def imagenet_simsiam() -> Recipe:
    """SimSiam, ResNet-50, 200 epochs on ImageNet-1k; published 70.0 linear, 72.2 with views (GenView). Not yet run.

    SGD 0.05 at batch 256, weight decay 1e-4, no warm-up: GenView table 9, xiaojieli0903/genview@38a6a78
    configs_genview/simsiam/. `--epochs 100 --batch-size 512` is the run of facebookresearch/simsiam@a7bc177 README.md,
    published 68.1. For 72.2, evaluate with `simsiam-linear`, used by GenView's code
    (configs_genview/simsiam/benchmarks/), rather than `genview-linear`, described in the paper.
    """
    return Recipe(
        **SHARED,
        name="imagenet-simsiam",
        method="simsiam",
        backbone_options={"zero_init_residual": True},
        augmentation=symmetric(imagenet_augment()),
        expected="linear 70.0, with views 72.2 (GenView)",
        epochs=200,
        batch_size=256,
        base_lr=0.05,
        weight_decay=1e-4,
    )


def imagenet_swav() -> Recipe:
    """SwAV, ResNet-50, 200 epochs, batch 256, queue; published 70.5 linear, 71.7 with views (GenView). Not yet run.

    lr 0.6 to 0.0006 without warm-up, a queue of 3840 from epoch 15, prototypes frozen for the first epoch, 2 x 224 and
    6 x 96 px: facebookresearch/swav@06b1b7c scripts/swav_200ep_bs256_pretrain.sh and src/multicropdataset.py (from
    which the std of 0.228 comes). One of the eight views is synthetic, as in GenView's code. Weight decay 1e-4 as
    in GenView's table 9; the script has 1e-6. Unlike LARC in the script, LARS here excludes biases and norms from
    adaptation and weight decay.
    """
    full = imagenet_augment(crop_scale=(0.14, 1.0), jitter=FULL_JITTER, std=(0.228, 0.224, 0.225))
    return Recipe(
        **SHARED,
        name="imagenet-swav",
        method="swav",
        method_options={"queue_size": 3840, "queue_start": 15 / 200, "freeze_fraction": 1 / 200},
        augmentation=symmetric(full, **multi_crop(full, count=6, scale=(0.05, 0.14))),
        expected="linear 70.5, with views 71.7 (GenView)",
        epochs=200,
        batch_size=256,
        optimizer="lars",
        base_lr=0.6,
        final_lr=6e-4,
        weight_decay=1e-4,
    )


def imagenet_byol() -> Recipe:
    """BYOL, ResNet-50, 200 epochs on ImageNet-1k; published 71.8 linear, 73.2 with views (GenView). Not yet run.

    LARS 4.8 at batch 4096, weight decay 1e-6: GenView table 9; momentum from 0.99, 10 warm-up epochs, bicubic crops
    from area 0.08: open-mmlab/mmpretrain@ee7f2e8 configs/byol/byol_resnet50_16xb256-coslr-200e_in1k.py, which
    reports 71.8.
    """
    return Recipe(
        **SHARED,
        name="imagenet-byol",
        method="byol",
        method_options={"momentum": 0.99},
        augmentation=asymmetric(imagenet_augment(crop_scale=(0.08, 1.0), interpolation="bicubic")),
        expected="linear 71.8, with views 73.2 (GenView)",
        epochs=200,
        batch_size=4096,
        optimizer="lars",
        base_lr=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
    )


def imagenet_moco_v3() -> Recipe:
    """MoCo v3, ResNet-50, 100 epochs, batch 512; published 68.9 linear, 72.7 with views (GenView). Not yet run.

    LARS 1.2 at batch 512 (0.6 per 256), weight decay 1e-6, 10 warm-up epochs, momentum 0.99 to 1, T 1: GenView table 9,
    xiaojieli0903/genview@38a6a78 configs_genview/mocov3/. The 68.9 is facebookresearch/moco-v3's at batch 4096.
    """
    return Recipe(
        **SHARED,
        name="imagenet-moco-v3",
        method="moco-v3",
        augmentation=asymmetric(imagenet_augment()),
        expected="linear 68.9, with views 72.7 (GenView)",
        epochs=100,
        batch_size=512,
        optimizer="lars",
        base_lr=0.6,
        weight_decay=1e-6,
        warmup_epochs=10.0,
    )


def imagenet_moco_v3_300() -> Recipe:
    """MoCo v3, ResNet-50, 300 epochs, batch 4096; published 72.8 linear, 74.8 with views (GenView). Not yet run.

    LARS 4.8 at batch 4096 (0.3 per 256): GenView table 9, facebookresearch/moco-v3@c349e6e CONFIG.md.
    """
    figures = "linear 72.8, with views 74.8 (GenView)"
    changes = {"epochs": 300, "batch_size": 4096, "base_lr": 0.3, "expected": figures}
    return replace(imagenet_moco_v3(), name="imagenet-moco-v3-300", **changes)


def imagenet_moco_v3_vit_s() -> Recipe:
    """MoCo v3, ViT-S/16, 300 epochs, batch 4096; published 73.2 linear, 74.5 with views (GenView). Not yet run.

    AdamW 2.4e-3 at batch 4096 (1.5e-4 per 256), weight decay 0.1 on every parameter, 40 warm-up epochs, T 0.2, a
    projector of three layers, a predictor that ends in a batch norm, crops from area 0.08, a frozen patch projection:
    GenView table 9, facebookresearch/moco-v3@c349e6e CONFIG.md and main_moco.py.
    """
    return Recipe(
        name="imagenet-moco-v3-vit-s",
        method="moco-v3",
        method_options={"projector_layers": 3, "predictor_norm": True, "temperature": 0.2},
        dataset="ImageNet-1k",
        backbone="moco_vit_small",
        decode_size=288,
        augmentation=asymmetric(imagenet_augment(crop_scale=(0.08, 1.0))),
        expected="linear 73.2, with views 74.5 (GenView)",
        epochs=300,
        batch_size=4096,
        optimizer="adamw",
        optimizer_options={"skip_norm_and_bias": False},
        base_lr=1.5e-4,
        weight_decay=0.1,
        warmup_epochs=40.0,
    )


def imagenet_moco_v3_vit_b() -> Recipe:
    """MoCo v3, ViT-B/16, 300 epochs, batch 4096; published 76.7 linear, 77.8 with views (GenView). Not yet run."""
    figures = "linear 76.7, with views 77.8 (GenView)"
    changes = {"name": "imagenet-moco-v3-vit-b", "backbone": "moco_vit_base", "expected": figures}
    return replace(imagenet_moco_v3_vit_s(), **changes)
