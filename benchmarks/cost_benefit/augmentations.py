"""Crop, color jitter and blur as single augmentations, with VICReg's parameters and probability 1.

Shapes: B images per batch, S height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

import viewgen
from pairdata import Augment


def _nothing(size: int) -> Augment:
    """Return the identity augmentation."""
    return Augment(
        size=size,
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        flip=0.0,
        jitter=None,
        gray_p=0.0,
        blur_p=0.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def augmentations(size: int) -> dict[str, Augment]:
    """Return the augmentations of GenCL's three rows by name, for squares of `size` pixels.

    GenCL (4.1) uses VICReg's parameters: facebookresearch/vicreg@4e12602 augmentations.py, crops of 0.08 to 1 of the
    area, jitter 0.4/0.4/0.2/0.1, sigma 0.1 to 2.
    """
    nothing = _nothing(size)
    return {
        "crop": replace(nothing, crop_scale=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3)),
        "jitter": replace(nothing, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=1.0),
        "blur": replace(nothing, blur_p=1.0, blur_sigma=(0.1, 2.0)),
    }


@dataclass
class Augmenter:
    """Augmentation from uint8 squares to uint8 squares, with random numbers seeded by its name."""

    name: str
    augment: Augment
    seed: int
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(viewgen.view_seed(self.seed, self.name, 0))

    def __call__(self, images: UInt8[Tensor, "B 3 S S"]) -> UInt8[Tensor, "B 3 S S"]:
        """Return a view of each image."""
        sizes = torch.tensor([images.shape[-2:]] * len(images))
        return self.augment(images, sizes, self.generator).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
