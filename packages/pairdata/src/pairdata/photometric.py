"""Color jitter, grayscale, solarization and Gaussian blur in place, with parameters of their own for each image.

The operations are those of torchvision's functional transforms. Every pass runs over memory that is already in the
cache, so hue is computed without branches and without storing HSV planes.

Legend: B images, C channels, H x W or S x S pixels; RGB values in [0, 1].
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pairdata.batch import copy_to
from pairdata.resample import separable

# ITU-R BT.601 luma with the digits torchvision uses.
_LUMA = (0.2989, 0.587, 0.114)
# Red, green and blue have the same profile along the hue circle, a third of a turn apart.
_PHASES = (0.0, -1 / 3, 1 / 3)


def brightness_(images: Float[Tensor, "B C H W"], factor: Float[Tensor, "B *channels"]) -> None:
    """x <- clamp(factor x), with one factor per image or per channel."""
    images.mul_(_each(factor)).clamp_(0, 1)


def contrast_(images: Float[Tensor, "B C H W"], factor: Float[Tensor, "B *channels"]) -> None:
    """x <- clamp(factor x + (1 - factor) m), m the mean luma of the image, or with factors per channel their means."""
    if factor.ndim == 2:
        mean = images.mean((2, 3))
        images.mul_(_each(factor)).add_(_each((1 - factor) * mean)).clamp_(0, 1)
        return
    mean = images.mean((2, 3)) @ copy_to(torch.tensor(_LUMA, dtype=images.dtype), images.device)
    images.mul_(_each(factor)).add_(_each((1 - factor) * mean)).clamp_(0, 1)


def saturation_(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, " B"]) -> None:
    """x <- clamp(factor x + (1 - factor) gray(x))."""
    gray = luma(images).mul_(_each(1 - factor))
    images.mul_(_each(factor)).add_(gray).clamp_(0, 1)


def hue_(images: Float[Tensor, "B 3 H W"], shift: Float[Tensor, " B"]) -> None:
    """Rotate the hue by `shift` (1 is a full turn); the largest and smallest channel of every pixel are kept.

    With V = max, C = max - min and hue h, a channel of phase p is V - C clamp(6 d - 1, 0, 1), where d is the distance
    of h + p to the nearest whole turn (https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative).
    """
    high = images.amax(1, keepdim=True)
    chroma = high - images.amin(1, keepdim=True)
    turn = _hue(images, high, chroma).add_(_each(shift))
    phases = copy_to(torch.tensor(_PHASES, dtype=images.dtype), images.device)
    torch.add(turn, phases.view(3, 1, 1), out=images)
    images.sub_(images.round()).abs_().mul_(6).sub_(1).clamp_(0, 1)
    torch.sub(high, images.mul_(chroma), out=images)


def gray_(images: Float[Tensor, "B 3 H W"]) -> None:
    """Every channel <- the image's gray."""
    images.copy_(luma(images).expand_as(images))


def solarize_(images: Float[Tensor, "B C H W"]) -> None:
    """Invert the values above one half: x <- min(x, 1 - x)."""
    torch.minimum(images, 1 - images, out=images)


def luma(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return the luma of an image, a weighted sum of its channels."""
    red, green, blue = images.split(1, 1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _hue(
    images: Float[Tensor, "B 3 H W"], high: Float[Tensor, "B 1 H W"], chroma: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 1 H W"]:
    """Hue in turns, between -1/6 and 5/6; 0 for gray pixels.

    The largest channel determines the third of the circle, the other two the position within it. The masks are floats,
    0 or 1: on a CPU, torch selects several times slower with boolean masks.
    """
    red, green, blue = images.split(1, 1)
    red_leads = torch.empty_like(high).copy_(high).eq_(red)
    green_leads = torch.empty_like(high).copy_(high).eq_(green).mul_(1 - red_leads)
    blue_leads = 1 - red_leads - green_leads
    within = red_leads.mul_(green - blue).addcmul_(green_leads, blue - red).addcmul_(blue_leads, red - green)
    within.div_(chroma.clamp_min(1e-12)).add_(green_leads, alpha=2).add_(blue_leads, alpha=4)
    return within.div_(6)


def _each(values: Float[Tensor, "B *channels"]) -> Float[Tensor, "B _ 1 1"]:
    """Return factors of images or channels as they broadcast over pixels."""
    return values.view(len(values), -1, 1, 1)


_SMALL = 64  # up to this size, two matrix products are faster than a sum of shifted images on a CPU


def blur_(images: Float[Tensor, "B C S S"], sigma: Float[Tensor, " B"]) -> None:
    """Blur in place like torchvision's gaussian_blur with kernel size 2 ceil(3 sigma) + 1 and reflected borders."""
    size = images.shape[-1]
    if images.device.type != "cpu" or size <= _SMALL:
        matrices = gaussian(sigma, size)
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
    """Correlate with the symmetric kernel whose center and right half are `taps`, as a sum of shifted images."""
    radius = len(taps) - 1
    length = padded.shape[axis] - 2 * radius
    total = padded.narrow(axis, radius, length) * taps[0]
    for reach in range(1, radius + 1):
        total.add_(padded.narrow(axis, radius - reach, length), alpha=taps[reach])
        total.add_(padded.narrow(axis, radius + reach, length), alpha=taps[reach])
    return total


def gaussian(sigma: Float[Tensor, " B"], size: int) -> Float[Tensor, "B {size} {size}"]:
    """Return matrices that blur `size` samples with a Gaussian cut off at `blur_radius`, with reflected borders."""
    reach = int(blur_radius(sigma, size).max())
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2) * (offset.abs() <= blur_radius(sigma, size)[:, None])
    taps = taps / taps.sum(1, keepdim=True)
    position = torch.arange(size, device=sigma.device)[:, None] + offset
    position = position.abs()
    position = torch.where(position > size - 1, 2 * (size - 1) - position, position)
    matrix = sigma.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, position.expand(len(sigma), -1, -1), taps[:, None].expand(-1, size, -1))


def blur_radius(sigma: Float[Tensor, "*B"], size: int) -> Float[Tensor, "*B"]:
    """Return the radius of the kernel in pixels: 3 sigma, which omits 0.3% of the Gaussian; smaller than the image."""
    return (3 * sigma).ceil().clamp(max=size - 1)
