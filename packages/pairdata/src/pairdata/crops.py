"""Random resized crops: boxes drawn in the original's geometry, cut from square images.

Legend: N images, B boxes, C channels, S size of the square input, `size` that of the output.
A box is (top, left, height, width) as fractions of the original image, so it applies to the square as well.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from pairdata.augment import Interpolation
from pairdata.batch import copy_to
from pairdata.resample import resampling, separable

_ATTEMPTS = 10  # torchvision's RandomResizedCrop tries as often


def sample_crops(
    sizes: Int64[Tensor, "B 2"],
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator,
) -> Float[Tensor, "B 4"]:
    """Draw one box per image, distributed exactly as torchvision's RandomResizedCrop draws them.

    Area uniform in `scale`, log of the aspect ratio uniform in log `ratio`; height and width rounded to whole pixels of
    the original; the first of ten attempts that fits, or else the largest central box of an allowed ratio
    (https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandomResizedCrop.html).

    Args:
        sizes: (height, width) of each original, pixels.
        scale: smallest and largest fraction of the image's area.
        ratio: smallest and largest width / height.
        generator: on the CPU; every image uses the same number of draws.
    """
    draws = torch.rand(len(sizes), 2 * _ATTEMPTS + 2, dtype=torch.float64, generator=generator)
    height, width = sizes.double()[:, None].unbind(-1)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, :_ATTEMPTS])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[:, _ATTEMPTS : 2 * _ATTEMPTS])
    tall, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    box = torch.cat([tall.gather(1, first), wide.gather(1, first)], 1)
    space = sizes.double() - box
    corner = (draws[:, 2 * _ATTEMPTS :] * (space + 1)).floor()
    boxes = torch.where(fits.any(1, keepdim=True), torch.cat([corner, box], 1), _central(sizes.double(), ratio))
    return (boxes / sizes.double().repeat(1, 2)).float()


def _central(sizes: Float[Tensor, "B 2"], ratio: tuple[float, float]) -> Float[Tensor, "B 4"]:
    """Return torchvision's fallback in pixels: the largest central box with the nearest allowed ratio."""
    height, width = sizes.unbind(1)
    tall = torch.where(width / height < ratio[0], (width / ratio[0]).round(), height)
    wide = torch.where(width / height > ratio[1], (height * ratio[1]).round(), width)
    box = torch.stack([tall, wide], 1)
    return torch.cat([((sizes - box) / 2).floor(), box], 1)


def center_boxes(sizes: Int64[Tensor, "B 2"], *, fraction: float = 224 / 256) -> Float[Tensor, "B 4"]:
    """Return the central square of each image, of a `fraction` of the shorter of height and width."""
    extent = fraction * sizes.double().amin(1, keepdim=True) / sizes.double()
    return torch.cat([(1 - extent) / 2, extent], 1).float()


def crop(
    images: UInt8[Tensor, "N C S S"],
    boxes: Float[Tensor, "B 4"],
    size: int,
    *,
    rows: Int64[Tensor, " B"] | None = None,
    flip: Bool[Tensor, " B"] | None = None,
    interpolation: Interpolation = "bilinear",
) -> UInt8[Tensor, "B C {size} {size}"]:
    """Crop boxes from square images and resize them with antialiasing.

    On a CPU, one by one with torch's 8-bit kernel, with boxes rounded to whole pixels of the square (fastest on
    channels_last images); on other devices all at once, without rounding.

    Args:
        images: square images.
        boxes: the boxes.
        size: height and width of the output in pixels.
        rows: the image that each box is cropped from, on the CPU; None crops box i from image i.
        flip: which crops to mirror horizontally, on the CPU; None for none.
        interpolation: "bilinear" or "bicubic", as in PIL's resize.
    """
    rows = torch.arange(len(images)) if rows is None else rows
    flip = torch.zeros(len(boxes), dtype=torch.bool) if flip is None else flip
    cut = crop_each if images.device.type == "cpu" else crop_by_matrices
    return cut(images, boxes, size, rows, flip, interpolation)


def crop_each(
    images: UInt8[Tensor, "N C S S"],
    boxes: Float[Tensor, "B 4"],
    size: int,
    rows: Int64[Tensor, " B"],
    flip: Bool[Tensor, " B"],
    interpolation: Interpolation = "bilinear",
) -> UInt8[Tensor, "B C {size} {size}"]:
    """Crop one by one; see `crop`."""
    out = images.new_empty(len(boxes), size, size, images.shape[1]).permute(0, 3, 1, 2)
    bounds = whole_pixels(boxes, images.shape[-1]).tolist()
    for i, (row, mirror, (top, left, bottom, right)) in enumerate(
        zip(rows.tolist(), flip.tolist(), bounds, strict=True)
    ):
        box = images[row : row + 1, :, top:bottom, left:right]
        cut = F.interpolate(box, (size, size), mode=interpolation, antialias=True, align_corners=False)[0]
        out[i] = cut.flip(-1) if mirror else cut
    return out


def whole_pixels(boxes: Float[Tensor, "B 4"], size: int) -> Int64[Tensor, "B 4"]:
    """Return boxes as (top, left, bottom, right) in whole pixels of a square, at least one pixel high and wide."""
    start, extent = boxes[:, :2] * size, boxes[:, 2:] * size
    first = start.round().clamp(0, size - 1)
    last = torch.maximum((start + extent).round(), first + 1).clamp(max=size)
    return torch.cat([first, last], 1).long()


def crop_by_matrices(
    images: UInt8[Tensor, "N C S S"],
    boxes: Float[Tensor, "B 4"],
    size: int,
    rows: Int64[Tensor, " B"],
    flip: Bool[Tensor, " B"],
    interpolation: Interpolation = "bilinear",
) -> UInt8[Tensor, "B C {size} {size}"]:
    """Crop all at once, as two matrix products per image, on any device; see `crop`."""
    input_size, device = images.shape[-1], images.device
    top, left, height, width = (copy_to(boxes, device) * input_size).unbind(1)
    down = resampling(top, height, input_size, size, interpolation)
    across = resampling(left, width, input_size, size, interpolation)
    across = torch.where(copy_to(flip, device)[:, None, None], across.flip(1), across)
    cut = separable(images[copy_to(rows, device)].float(), down, across, clamp=interpolation == "bicubic")
    return cut.round_().clamp_(0, 255).to(torch.uint8)
