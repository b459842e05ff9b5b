"""Colour jitter in place, each image with its own strength, as torchvision's functional defines it per image.

Every pass runs over memory that is already in the cache, so hue is computed without a branch and without HSV planes
being written out. Legend: B images, H x W pixels, RGB values in [0, 1].
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pairdata.device_copy import copy_to

# ITU-R BT.601 luma with the digits torchvision uses.
_LUMA = (0.2989, 0.587, 0.114)
# Red, green and blue rise and fall alike along the hue circle, a third of a turn apart.
_PHASES = (0.0, -1 / 3, 1 / 3)


def brightness_(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, " B"]) -> None:
    """x <- clamp(factor x)."""
    images.mul_(_each(factor)).clamp_(0, 1)


def contrast_(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, " B"]) -> None:
    """x <- clamp(factor x + (1 - factor) m), m the mean grey of the image."""
    mean = images.mean((2, 3)) @ copy_to(torch.tensor(_LUMA, dtype=images.dtype), images.device)
    images.mul_(_each(factor)).add_(_each((1 - factor) * mean)).clamp_(0, 1)


def saturation_(images: Float[Tensor, "B 3 H W"], factor: Float[Tensor, " B"]) -> None:
    """x <- clamp(factor x + (1 - factor) grey(x))."""
    grey = luma(images).mul_(_each(1 - factor))
    images.mul_(_each(factor)).add_(grey).clamp_(0, 1)


def hue_(images: Float[Tensor, "B 3 H W"], shift: Float[Tensor, " B"]) -> None:
    """Turn the hue by `shift` (1 is a whole turn); the largest and smallest channel of every pixel stay.

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
    """Every channel <- the image's grey."""
    images.copy_(luma(images).expand_as(images))


def solarize_(images: Float[Tensor, "B 3 H W"]) -> None:
    """Invert the values above one half: x <- min(x, 1 - x)."""
    torch.minimum(images, 1 - images, out=images)


def luma(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    """The grey of an image, a weighted sum of its channels."""
    red, green, blue = images.split(1, 1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _hue(
    images: Float[Tensor, "B 3 H W"], high: Float[Tensor, "B 1 H W"], chroma: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, "B 1 H W"]:
    """Hue in turns, between -1/6 and 5/6; 0 for grey pixels.

    The largest channel tells the third of the circle, the other two the place within it. The masks are floats, 0 or 1:
    torch selects with a boolean mask several times slower on a CPU.
    """
    red, green, blue = images.split(1, 1)
    red_leads = torch.empty_like(high).copy_(high).eq_(red)
    green_leads = torch.empty_like(high).copy_(high).eq_(green).mul_(1 - red_leads)
    blue_leads = 1 - red_leads - green_leads
    within = red_leads.mul_(green - blue).addcmul_(green_leads, blue - red).addcmul_(blue_leads, red - green)
    within.div_(chroma.clamp_min(1e-12)).add_(green_leads, alpha=2).add_(blue_leads, alpha=4)
    return within.div_(6)


def _each(values: Float[Tensor, " B"]) -> Float[Tensor, "B 1 1 1"]:
    return values[:, None, None, None]
