"""GenView's augmentations for a whole batch at once, with all random numbers from one generator.

Shapes: b images of S x S pixels, s the size of a crop.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

MakeViews = Callable[[UInt8[Tensor, "b 3 S S"], torch.Generator], Float[Tensor, "b 3 s s"]]
"""Function of (images, CPU generator) that returns augmented views in [0, 1]."""

GRAY = (0.299, 0.587, 0.114)
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def crops(
    images: UInt8[Tensor, "b 3 S S"],
    generator: torch.Generator,
    *,
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
) -> Float[Tensor, "b 3 {size} {size}"]:
    """Apply random resized crop, flip, jitter (0.4, 0.4, 0.4, 0.1; p 0.8), gray (p 0.2) and blur (p 0.5).

    The augmentations of https://arxiv.org/abs/2403.12003. Color jitter is one affine map of the colors (hue is a
    rotation in YIQ), so that a batch is jittered at once; the crop is bilinear.

    Args:
        images: square images.
        generator: generator on the CPU, so that every device gets the same crops.
        size: size of the crops.
        scale: smallest and largest fraction of the area.
    """
    place = _boxes(len(images), scale, generator).to(images.device)
    grid = affine_grid(place, [len(images), 3, size, size], align_corners=False)
    views = grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False)
    views = _jittered(views, generator)
    return _blurred(views, generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _boxes(count: int, scale: tuple[float, float], generator: torch.Generator) -> Float[Tensor, "b 2 3"]:
    """Return affine maps to boxes of random area, aspect ratio and position, half of them mirrored."""
    area = _uniform(count, *scale, generator)
    ratio = _uniform(count, math.log(3 / 4), math.log(4 / 3), generator).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    across, down = (
        (1 - width) * _uniform(count, -1.0, 1.0, generator),
        (1 - height) * _uniform(count, -1.0, 1.0, generator),
    )
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    nothing = torch.zeros(count)
    return torch.stack([torch.stack([width * mirror, nothing, across], 1), torch.stack([nothing, height, down], 1)], 1)


def _jittered(views: Tensor, generator: torch.Generator) -> Tensor:
    count = len(views)
    brightness, contrast, saturation = (_uniform(count, 0.6, 1.4, generator) for _ in range(3))
    angle = _uniform(count, -0.1, 0.1, generator) * 2 * math.pi
    plain = torch.rand(count, generator=generator) >= 0.8
    brightness, contrast, saturation = (each.where(~plain, 1.0) for each in (brightness, contrast, saturation))
    saturation = saturation.where(torch.rand(count, generator=generator) >= 0.2, 0.0)
    matrix = _colours(brightness * contrast, saturation, angle.where(~plain, 0.0)).to(views.device)
    gray = torch.einsum("c,bchw->b", views.new_tensor(GRAY), views) / views[0, 0].numel()
    shift = (brightness * (1 - contrast)).to(views.device) * gray
    return (torch.einsum("bcd,bdhw->bchw", matrix, views) + shift[:, None, None, None]).clamp(0, 1)


def _colours(gain: Tensor, saturation: Tensor, angle: Tensor) -> Float[Tensor, "b 3 3"]:
    """Return matrices that rotate the hue, mix with gray, and scale."""
    to_yiq = torch.tensor(YIQ)
    turn = torch.zeros(len(gain), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1], turn[:, 1, 2] = angle.sin(), -angle.sin()
    hue = to_yiq.inverse() @ turn @ to_yiq
    gray = torch.tensor(GRAY).expand(3, 3)
    saturation = saturation[:, None, None]
    return gain[:, None, None] * (saturation * hue + (1 - saturation) * (gray @ hue))


def _blurred(views: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the views with a Gaussian of sigma 0.1 to 2 pixels of the crop."""
    count = len(views)
    sigma = _uniform(count, 0.1, 2.0, generator)
    sigma = sigma.where(torch.rand(count, generator=generator) < 0.5, 0.01)
    reach = 6  # three of the largest sigma
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.softmax(-((offsets / sigma[:, None]) ** 2) / 2, dim=1).to(views.device).repeat_interleave(3, 0)
    flat = pad(views, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    flat = conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    flat = conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    return flat[0].unflatten(0, (count, 3))
