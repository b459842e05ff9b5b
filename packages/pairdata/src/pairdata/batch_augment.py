"""Augment a whole batch on its device, each image with its own random parameters.

Legend: B images, C channels, S x S pixels in the input, `size` x `size` in the output.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from pairdata.augment import Augment
from pairdata.batch import copy_to
from pairdata.crops import crop, sample_crops
from pairdata.photometric import blur_, brightness_, contrast_, gray_, hue_, saturation_, solarize_

_JITTER = (brightness_, contrast_, saturation_, hue_)
_ORDERS = tuple(permutations(range(4)))
_CHUNK_VALUES = 2**20  # processed at a time on a CPU, so that they stay in its cache


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentDraws:
    """Random parameters of each image of a batch, on the CPU.

    Attributes:
        boxes: (top, left, height, width) as fractions of the original.
        flip: whether to mirror horizontally.
        order: index of the permutation of brightness, contrast, saturation and hue, 0 to 23; 24 for no jitter.
        factors: factors of brightness, contrast, saturation and hue; for other than three channels, of each channel.
        gray: whether to convert to grayscale.
        blur: whether to blur.
        sigma: standard deviation of the blur in output pixels.
        solarize: whether to solarize.
    """

    boxes: Float[Tensor, "B 4"]
    flip: Bool[Tensor, " B"]
    order: Int64[Tensor, " B"]
    factors: Float[Tensor, "B 4 *channels"]
    gray: Bool[Tensor, " B"]
    blur: Bool[Tensor, " B"]
    sigma: Float[Tensor, " B"]
    solarize: Bool[Tensor, " B"]

    def __getitem__(self, rows: slice | Int64[Tensor, " n"]) -> "AugmentDraws":
        return AugmentDraws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw(augment: Augment, sizes: Int64[Tensor, "B 2"], generator: torch.Generator) -> AugmentDraws:
    """Draw the random parameters of every image; the number of draws depends only on B and C."""
    boxes = sample_crops(sizes.cpu(), scale=augment.crop_scale, ratio=augment.crop_ratio, generator=generator)
    chance = torch.rand(len(sizes), 6, generator=generator)
    order = torch.randint(len(_ORDERS), (len(sizes),), generator=generator)
    low, high = _factor_range(augment.jitter or (0.0, 0.0, 0.0, 0.0))
    per_channel = () if augment.channels == 3 else (augment.channels,)
    low, high = (bound.view(4, *(1 for _ in per_channel)) for bound in (low, high))
    jittered = chance[:, 1] < (augment.jitter_p if augment.jitter else 0.0)
    return AugmentDraws(
        boxes=boxes,
        flip=chance[:, 0] < augment.flip,
        order=order.where(jittered, len(_ORDERS)),
        factors=low + (high - low) * torch.rand(len(sizes), 4, *per_channel, generator=generator),
        gray=chance[:, 2] < augment.gray_p,
        blur=chance[:, 3] < augment.blur_p,
        sigma=augment.blur_sigma[0] + (augment.blur_sigma[1] - augment.blur_sigma[0]) * chance[:, 4],
        solarize=chance[:, 5] < augment.solarize_p,
    )


def apply(
    augment: Augment, images: UInt8[Tensor, "B C S S"], draws: AugmentDraws
) -> Float[Tensor, "B C {augment.size} {augment.size}"]:
    """Augment a batch with given random parameters.

    Raises:
        ValueError: the images have another number of channels than mean and std.
    """
    size, channels = augment.size, augment.channels
    if images.shape[1] != channels:
        raise ValueError(f"expected images of {channels} channels, as mean and std have, got {images.shape[1]}")
    out = torch.empty(len(images), channels, size, size, device=images.device)
    chunk = _CHUNK_VALUES // (channels * size**2) if images.device.type == "cpu" else len(images)
    chunk = max(1, chunk)
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        _apply_to(out[part], augment, images[part], draws[part])
    return out


def _apply_to(
    out: Float[Tensor, "B C size size"], augment: Augment, images: UInt8[Tensor, "B C S S"], draws: AugmentDraws
) -> None:
    """Augment a chunk of the batch and write it to `out`."""
    order = draws.order.argsort(stable=True)  # images with the same order of jitter become adjacent
    draws = draws[order]
    crops = crop(images, draws.boxes, augment.size, rows=order, flip=draws.flip, interpolation=augment.interpolation)
    out.copy_(crops).div_(255)
    _jitter_(out, draws, augment.jitter or (0.0, 0.0, 0.0, 0.0))
    _where_drawn_(out, draws.gray, gray_)
    _where_drawn_(out, draws.blur, blur_, draws.sigma)
    _where_drawn_(out, draws.solarize, solarize_)
    mean, std = copy_to(torch.tensor([augment.mean, augment.std]), out.device)[:, :, None, None]
    out.sub_(mean).div_(std)
    if len(out) > 1:
        out.copy_(out[copy_to(order.argsort(), out.device)])


def _factor_range(jitter: tuple[float, float, float, float]) -> tuple[Float[Tensor, " 4"], Float[Tensor, " 4"]]:
    *around_one, hue = jitter
    low = [max(0.0, 1 - strength) for strength in around_one]
    return torch.tensor([*low, -hue]), torch.tensor([*(1 + strength for strength in around_one), hue])


def _jitter_(values: Float[Tensor, "B C H W"], draws: AugmentDraws, strengths: tuple[float, ...]) -> None:
    """Jitter images that are sorted by `draws.order`; images with the same order are processed together."""
    factors = copy_to(draws.factors, values.device)
    numbers, counts = draws.order.unique_consecutive(return_counts=True)
    start = 0
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        run = slice(start, start + count)
        for step in _ORDERS[number] if number < len(_ORDERS) else ():
            if strengths[step] > 0:
                _JITTER[step](values[run], factors[run, step])
        start += count


def _where_drawn_(
    values: Float[Tensor, "B C H W"],
    drawn: Bool[Tensor, " B"],
    operation: Callable[..., None],
    *strengths: Float[Tensor, " B"],
) -> None:
    """Apply an operation in place to the images for which it was drawn."""
    if drawn.all():
        operation(values, *(copy_to(strength, values.device) for strength in strengths))
    elif drawn.any():
        rows = copy_to(drawn.nonzero()[:, 0], values.device)
        some = values[rows]
        operation(some, *(copy_to(strength[drawn], values.device) for strength in strengths))
        values[rows] = some
