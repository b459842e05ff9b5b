"""Gaussian blur, each image with its own sigma.

Legend: B images, C channels, S side.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pairdata.resample import separable

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


def gaussian(sigma: Float[Tensor, " B"], side: int) -> Float[Tensor, "B {side} {side}"]:
    """Return matrices that blur `side` samples with a Gaussian cut off at `blur_radius`, with reflected borders."""
    reach = int(blur_radius(sigma, side).max())
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2) * (offset.abs() <= blur_radius(sigma, side)[:, None])
    taps = taps / taps.sum(1, keepdim=True)
    position = torch.arange(side, device=sigma.device)[:, None] + offset
    position = position.abs()
    position = torch.where(position > side - 1, 2 * (side - 1) - position, position)
    matrix = sigma.new_zeros(len(sigma), side, side)
    return matrix.scatter_add_(2, position.expand(len(sigma), -1, -1), taps[:, None].expand(-1, side, -1))


def blur_radius(sigma: Float[Tensor, "*B"], side: int) -> Float[Tensor, "*B"]:
    """Return the radius of the kernel in pixels: 3 sigma, which omits 0.3% of the Gaussian; smaller than the image."""
    return (3 * sigma).ceil().clamp(max=side - 1)
