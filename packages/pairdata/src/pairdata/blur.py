"""Gaussian blur, each image with its own sigma.

Legend: B images, C channels, S side.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pairdata.separable import blur_radius, gaussian, separable

_SMALL = 64  # sides up to which two matrix products beat the sum of shifted images on a CPU


def blur_(images: Float[Tensor, "B C S S"], sigma: Float[Tensor, " B"]) -> None:
    """Blur in place as torchvision's gaussian_blur does with kernel size 2 ceil(3 sigma) + 1, borders reflected."""
    side = images.shape[-1]
    if images.device.type != "cpu" or side <= _SMALL:
        matrices = gaussian(sigma, side)
        images.copy_(separable(images, matrices, matrices))
        return
    for image, one_sigma in zip(images, sigma, strict=True):
        image.copy_(_blur_one(image, one_sigma))


def _blur_one(image: Float[Tensor, "C S S"], sigma: Float[Tensor, ""]) -> Float[Tensor, "C S S"]:
    radius = int(blur_radius(sigma, image.shape[-1]))
    taps = torch.exp(-0.5 * (torch.arange(radius + 1) / sigma) ** 2)
    taps = (taps / (2 * taps.sum() - taps[0])).tolist()
    rows = _slide(F.pad(image, (0, 0, radius, radius), mode="reflect"), 1, taps)
    return _slide(F.pad(rows, (radius, radius, 0, 0), mode="reflect"), 2, taps)


def _slide(padded: Float[Tensor, "C H W"], axis: int, taps: list[float]) -> Float[Tensor, "C h w"]:
    """Correlate with the symmetric kernel whose middle and right half are `taps`, as a sum of shifted images."""
    radius = len(taps) - 1
    length = padded.shape[axis] - 2 * radius
    total = padded.narrow(axis, radius, length) * taps[0]
    for reach in range(1, radius + 1):
        total.add_(padded.narrow(axis, radius - reach, length), alpha=taps[reach])
        total.add_(padded.narrow(axis, radius + reach, length), alpha=taps[reach])
    return total
