"""CIFAR-10 and CIFAR-100 at 32 px: ResNet-18 with a 3 x 3 stem and no pooling after it.

Sources: MoCo v2 and BYOL from GenView (arXiv 2403.12003, appendix A); SimSiam and SimCLR from their papers; Barlow
Twins and SwAV, and all kNN results, from lightly's benchmark (lightly-ai/lightly@e8d317f
docs/source/getting_started/benchmarks/cifar10_benchmark.py, batch 512, k = 200); MoCo v3 and VICReg from solo-learn
(vturrisi/solo-learn@9187ea3 scripts/pretrain/cifar/, with an online linear probe). Epochs are those of each source.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from genviews.recipes.augmentations import (
    BYOL_JITTER,
    CIFAR100_MEAN,
    CIFAR100_STD,
    NOT_NORMALIZED,
    asymmetric,
    cifar_augment,
    dino_cifar_views,
    symmetric,
)
from genviews.recipes.recipe import Recipe

SHARED: dict[str, Any] = {"dataset": "CIFAR-10", "backbone_options": {"cifar_stem": True}}
ON_CIFAR100 = {"mean": CIFAR100_MEAN, "std": CIFAR100_STD}
SOLO_LARS = {"trust_coefficient": 0.02, "clip": True}
"""clip_lr and eta of solo-learn's configurations."""


def cifar10_simsiam() -> Recipe:
    """SimSiam on 32 px images: ResNet-18 with CIFAR stem, 200 epochs. Not yet run.

    SGD 0.03 per 256, weight decay 5e-4, no warm-up, a projector of two layers, no blur: the CIFAR setting of SimSiam's
    appendix D (arXiv 2011.10566), which trains for 800 epochs.
    """
    return Recipe(
        **SHARED,
        name="cifar10-simsiam",
        method="simsiam",
        method_options={"projector_layers": 2},
        augmentation=symmetric(cifar_augment(blur_p=0.0)),
        base_lr=0.03,
    )


def genview_moco_v2() -> Recipe:
    """MoCo v2 on 32 px images as GenView trains it: ResNet-18, 500 epochs; published 93.00 with views. Not yet run.

    Batch norm in 8 splits: facebookresearch/moco@f736491 colab/moco_cifar10_demo.ipynb.
    """
    return Recipe(
        **SHARED,
        name="cifar10-moco-v2",
        method="moco-v2",
        method_options={"queue_size": 4096, "momentum": 0.99, "temperature": 0.2, "splits": 8},
        augmentation=symmetric(cifar_augment()),
        expected="linear 93.00 with views (GenView)",
        epochs=500,
        base_lr=0.5,
        base_batch_size=512,
        warmup_epochs=10.0,
    )


def genview_byol() -> Recipe:
    """BYOL on 32 px images as GenView trains it: ResNet-18, 500 epochs; published 93.56 with views. Not yet run.

    SGD 0.5 at batch 512, projection 128, momentum from 0.99. GenView does not give the width of the heads: 4096, as
    BYOL has.
    """
    return replace(
        genview_moco_v2(),
        name="cifar10-byol",
        method="byol",
        method_options={"projection_dim": 128, "momentum": 0.99},
        expected="linear 93.56 with views (GenView)",
    )


def cifar100_moco_v2() -> Recipe:
    """cifar10-moco-v2 on CIFAR-100; published 67.49 with views (GenView). Not yet run."""
    changes = {"name": "cifar100-moco-v2", "dataset": "CIFAR-100", "expected": "linear 67.49 with views (GenView)"}
    return replace(genview_moco_v2(), augmentation=symmetric(cifar_augment(**ON_CIFAR100)), **changes)


def cifar100_byol() -> Recipe:
    """cifar10-byol on CIFAR-100; published 67.53 with views (GenView). Not yet run."""
    changes = {"name": "cifar100-byol", "dataset": "CIFAR-100", "expected": "linear 67.53 with views (GenView)"}
    return replace(genview_byol(), augmentation=symmetric(cifar_augment(**ON_CIFAR100)), **changes)


def cifar10_simclr() -> Recipe:
    """SimCLR on 32 px images: ResNet-18, 1000 epochs; published about 91 linear. Not yet run.

    LARS 1.0 per 256, weight decay 1e-4, T 0.5, jitter of strength 0.5, no blur: google-research/simclr@383d414
    README.md; zero-initialized last norm of residual blocks: its resnet.py; bicubic crops: its data_util.py.
    """
    augment = cifar_augment(crop_scale=(0.08, 1.0), blur_p=0.0, interpolation="bicubic", **NOT_NORMALIZED)
    return Recipe(
        name="cifar10-simclr",
        method="simclr",
        dataset="CIFAR-10",
        backbone_options={"cifar_stem": True, "zero_init_residual": True},
        method_options={"temperature": 0.5},
        augmentation=symmetric(augment),
        expected="linear about 91 (SimCLR)",
        epochs=1000,
        optimizer="lars",
        optimizer_options={"lr_in_momentum": True},
        base_lr=1.0,
        weight_decay=1e-4,
        warmup_epochs=10.0,
        warmup_includes_peak=False,
    )


def cifar10_moco_v3() -> Recipe:
    """MoCo v3 on 32 px images: ResNet-18, 1000 epochs; published 93.10 linear (solo-learn). Not yet run.

    LARS 0.3 per 256, trust 0.02 and clipped, weight decay 1e-6, T 0.2: solo-learn mocov3.yaml, asymmetric.yaml;
    bicubic crops: its pretrain_dataloader.py.
    """
    return Recipe(
        **SHARED,
        name="cifar10-moco-v3",
        method="moco-v3",
        method_options={"temperature": 0.2},
        augmentation=asymmetric(cifar_augment(crop_scale=(0.08, 1.0), interpolation="bicubic"), blur=(0.0, 0.0)),
        expected="linear 93.10 (solo-learn)",
        epochs=1000,
        batch_size=256,
        optimizer="lars",
        optimizer_options=SOLO_LARS,
        base_lr=0.3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
    )


def cifar10_vicreg() -> Recipe:
    """VICReg on 32 px images: ResNet-18, 1000 epochs; published 92.07 linear (solo-learn). Not yet run.

    LARS 0.3 per 256, trust 0.02 and clipped, weight decay 1e-4, an expander of 2048s: solo-learn vicreg.yaml, which
    adds the variance of both views where VICReg takes their mean, hence 50 here. Crops are bicubic.
    """
    augment = cifar_augment(jitter=BYOL_JITTER, blur_p=0.0, solarize_p=0.1, interpolation="bicubic")
    return replace(
        cifar10_moco_v3(),
        name="cifar10-vicreg",
        method="vicreg",
        method_options={"expander": (2048, 2048, 2048), "variance": 50.0},
        augmentation=symmetric(augment),
        expected="linear 92.07 (solo-learn)",
        weight_decay=1e-4,
    )


def cifar10_barlow_twins() -> Recipe:
    """Barlow Twins on 32 px images: ResNet-18, 200 epochs; published 81.9 kNN (lightly). Not yet run.

    SGD 0.06 per 128, weight decay 5e-4, a projector of 2048-2048, no blur: lightly's benchmark; lambda is 0.0051, there
    0.005.
    """
    return Recipe(
        **SHARED,
        name="cifar10-barlow-twins",
        method="barlow-twins",
        method_options={"projector": (2048, 2048)},
        augmentation=asymmetric(cifar_augment(crop_scale=(0.08, 1.0)), blur=(0.0, 0.0)),
        expected="kNN 81.9 (lightly)",
        base_lr=0.06,
        base_batch_size=128,
    )


def cifar10_swav() -> Recipe:
    """SwAV on 32 px images: ResNet-18, 200 epochs, two crops; published 84.2 kNN (lightly). Not yet run.

    Adam 1e-3 per 128, weight decay 1e-6, 512 prototypes, a head of 512-128, no queue, nothing frozen: lightly's
    benchmark. The decay is AdamW's.
    """
    return Recipe(
        **SHARED,
        name="cifar10-swav",
        method="swav",
        method_options={"prototypes": 512, "hidden_dim": 512, "freeze_fraction": 0.0},
        augmentation=symmetric(cifar_augment(crop_scale=(0.14, 1.0), blur_p=0.0)),
        expected="kNN 84.2 (lightly)",
        optimizer="adamw",
        base_lr=1e-3,
        base_batch_size=128,
        weight_decay=1e-6,
    )


def cifar10_dino() -> Recipe:
    """DINO on 32 px images: ResNet-18 with CIFAR stem, 200 epochs. Not yet run.

    Optimizer, schedules and bicubic crops: facebookresearch/dino@7c446df main_dino.py.
    """
    return Recipe(
        **SHARED,
        name="cifar10-dino",
        method="dino",
        method_options={"out_dim": 4096},
        augmentation=dino_cifar_views(interpolation="bicubic"),
        optimizer="adamw",
        base_lr=5e-4,
        final_lr=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10.0,
        per_param_clip_norm=3.0,
    )


def cifar10_gen_dino() -> Recipe:
    """Gen-DINO on 32 px images: cifar10-dino with the disentanglement term. Not yet run."""
    return replace(cifar10_dino(), name="cifar10-gen-dino", method="gen-dino", policy="gensis")
