"""ImageNet-1k: VICReg as in GenCL, DINO and Gen-DINO as in Gen-SIS, SimCLR and Barlow Twins as in their papers.

Images are decoded to squares of 288 px, from which crops are taken; officially, crops are taken from the full image.
The table shows the effect of `--decode-size` on 100 COCO images (586 x 479 px on average) and one core: PSNR of crops
against crops of the full image, fraction of upsampled crops, augmentation speed for 224 px, and memory (or size of raw
records) for 1.28 million images.

| size | 224 px of area 0.08 to 1 | 96 px of area 0.05 to 0.4 | enlarged (224 px) | images/s | GB |
|---|---|---|---|---|---|
| 288 | 30.8 dB | 34.7 dB | 76% | 880 | 319 |
| 352 | 32.4 dB | 36.4 dB | 48% | 750 | 476 |
| 448 | 34.5 dB | 38.6 dB | 27% | 710 | 771 |
| full image | | | 19% | | |

JPEG decoding takes the same time for each size (about 200 images/s per core). No encoder was trained with these sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from genviews.recipes.augmentations import (
    BYOL_JITTER,
    FULL_JITTER,
    NOT_NORMALIZED,
    asymmetric,
    imagenet_augment,
    multi_crop,
    symmetric,
)
from genviews.recipes.recipe import Recipe

RESNET: dict[str, Any] = {
    "dataset": "ImageNet-1k",
    "backbone": "resnet50",
    "backbone_options": {"zero_init_residual": True},
    "decode_size": 288,
}


def imagenet_vicreg() -> Recipe:
    """VICReg, ResNet-50, 100 epochs, batch 800, as GenCL; published 65.8 linear, 68.5 with views. Not yet run.

    GenCL section 4: VICReg's own protocol but for batch and epochs, half of the images with a view of MaskGIT (ICGAN:
    66.3 at `--view-probability 0.25`). GenCL does not state its learning rate. LARS 0.3 per 256 is the 100-epoch
    command of facebookresearch/vicreg@4e12602 README.md (batch 512; the author in issues 13 and 21: 0.3 at 2048, 0.5 at
    256); 0.2 there is for 1000 epochs. Weight decay 1e-6, 10 warm-up epochs, final lr 0.001 times the peak:
    main_vicreg.py; views with bicubic crops: augmentations.py.
    """
    return Recipe(
        **RESNET,
        name="imagenet-vicreg",
        method="vicreg",
        augmentation=asymmetric(imagenet_augment(crop_scale=(0.08, 1.0), interpolation="bicubic")),
        expected="linear 65.8, with views 68.5 (GenCL)",
        policy="gencl",
        view_probability=0.5,
        epochs=100,
        batch_size=800,
        optimizer="lars",
        base_lr=0.3,
        final_lr_ratio=1e-3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        warmup_includes_peak=False,
    )


def imagenet_dino() -> Recipe:
    """DINO, ViT-S/16, 100 epochs, two 224 px and eight 96 px crops; published 69.4 kNN, 74.0 linear. Not yet run.

    AdamW 5e-4 per 256, weight decay 0.04 to 0.4, 10 warm-up epochs, per-parameter clipping at 3, drop path 0.1:
    facebookresearch/dino@7c446df main_dino.py, batch 512 as in the 8-GPU run of its README, bicubic crops; published
    results: Gen-SIS.
    """
    full = imagenet_augment(crop_scale=(0.4, 1.0), jitter=BYOL_JITTER, blur_p=0.5, interpolation="bicubic")
    return Recipe(
        name="imagenet-dino",
        method="dino",
        dataset="ImageNet-1k",
        backbone="dino_vit_small",
        backbone_options={"drop_path_rate": 0.1},
        augmentation=asymmetric(full, **multi_crop(full, count=8, scale=(0.05, 0.4))),
        expected="kNN 69.4, linear 74.0 (Gen-SIS)",
        decode_size=288,
        epochs=100,
        optimizer="adamw",
        base_lr=5e-4,
        final_lr=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10.0,
        per_param_clip_norm=3.0,
    )


def imagenet_gen_dino() -> Recipe:
    """Gen-DINO: imagenet-dino with generative and interpolated views; published 70.9 kNN, 74.5 linear. Not yet run.

    Local crops alternate between the real and the generative image; Gen-SIS does not specify their source.
    """
    figures = "kNN 70.9, linear 74.5, with views (Gen-SIS)"
    changes = {"method": "gen-dino", "policy": "gensis", "expected": figures}
    return replace(imagenet_dino(), name="imagenet-gen-dino", **changes)


def imagenet_simclr() -> Recipe:
    """SimCLR, ResNet-50, 100 epochs, batch 4096; published 64.5 linear. Not yet run.

    LARS 0.075 sqrt(batch), weight decay 1e-4, 10 warm-up epochs, T 0.1, three projector layers, jitter of strength 1:
    google-research/simclr@383d414 README.md, run.py, data_util.py. Its momentum carries the rate (lars_optimizer.py).
    Crops are bicubic with antialiasing; there, without antialiasing.
    """
    full = imagenet_augment(crop_scale=(0.08, 1.0), jitter=FULL_JITTER, interpolation="bicubic", **NOT_NORMALIZED)
    return Recipe(
        **RESNET,
        name="imagenet-simclr",
        method="simclr",
        augmentation=symmetric(full),
        expected="linear 64.5 (SimCLR)",
        epochs=100,
        batch_size=4096,
        optimizer="lars",
        optimizer_options={"lr_in_momentum": True},
        base_lr=4.8,
        base_batch_size=4096,
        lr_scaling="sqrt",
        weight_decay=1e-4,
        warmup_epochs=10.0,
        warmup_includes_peak=False,
    )


def imagenet_barlow_twins() -> Recipe:
    """Barlow Twins, ResNet-50, 1000 epochs, batch 2048; published 73.5 linear. Not yet run.

    LARS 0.2 per 256, biases and norms 0.0048 per 256, both down to a thousandth, weight decay 1e-6, 10 warm-up epochs:
    facebookresearch/barlowtwins@8e8d284 main.py, which divides the gradient by the number of processes where the rate
    of matrices hides it: its run on 16 GPUs is `bias_lr_factor` 0.0015 here.
    """
    return Recipe(
        **RESNET,
        name="imagenet-barlow-twins",
        method="barlow-twins",
        augmentation=asymmetric(imagenet_augment(crop_scale=(0.08, 1.0), interpolation="bicubic")),
        expected="linear 73.5 (Barlow Twins)",
        epochs=1000,
        batch_size=2048,
        optimizer="lars",
        optimizer_options={"bias_lr_factor": 0.024},
        base_lr=0.2,
        final_lr_ratio=1e-3,
        weight_decay=1e-6,
        warmup_epochs=10.0,
        warmup_includes_peak=False,
    )
