"""Table 4 of GenCL: generative and other augmentations on ImageNet."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row; FID and SSIM over ImageNet's training set, milliseconds per image at batch 1 over 1,000 images."""

    name: str
    top1: float
    fid: float
    ssim: float
    milliseconds: float
    parameters: float | None = None


GENCL = {
    "icgan": Published("ICGAN, noise-based", 54.4, 21.13, 0.21, 19.82, 116e6),
    "maskgit": Published("MaskGIT, mask-based", 67.8, 3.70, 0.32, 98.93, 227e6),
    "crop": Published("crop", 35.0, 2.48, 0.27, 0.58),
    "jitter": Published("jitter", 22.7, 0.23, 0.87, 3.70),
    "blur": Published("blur", 6.5, 3.72, 0.88, 0.64),
}
"""Rows by the name of our generator or augmentation. Linear top-1 is that of VICReg with ResNet-50; for the last three
rows it is SimCLR's plus the difference between the two methods."""
