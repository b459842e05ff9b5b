"""Augment a whole batch on its device: every image its own parameters, every operation only where it was drawn.

Legend: B images, S side of the square input, `size` side of the output.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from pairdata.blur import blur_
from pairdata.color import brightness_, contrast_, grey_, hue_, saturation_, solarize_
from pairdata.crops import crop, sample_crops
from pairdata.device_copy import copy_to
from pairdata.separable import Interpolation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_JITTER = (brightness_, contrast_, saturation_, hue_)
_ORDERS = tuple(permutations(range(4)))
_BLOCK = 2**20  # values a CPU works on at a time, so that they stay in its cache


@dataclass(frozen=True, kw_only=True, eq=False)
class AugmentDraws:
    """What was drawn for each image of a batch, on the CPU.

    Attributes:
        boxes: (top, left, height, width) as fractions of the original.
        flip: whether to mirror left and right.
        order: which of the 24 orders of brightness, contrast, saturation, hue; 24 for no jitter.
        factors: the strengths of those four, in that order.
        grey: whether to drop the colour.
        blur: whether to blur.
        sigma: with what sigma, in output pixels.
        solarize: whether to solarize.
    """

    boxes: Float[Tensor, "B 4"]
    flip: Bool[Tensor, " B"]
    order: Int64[Tensor, " B"]
    factors: Float[Tensor, "B 4"]
    grey: Bool[Tensor, " B"]
    blur: Bool[Tensor, " B"]
    sigma: Float[Tensor, " B"]
    solarize: Bool[Tensor, " B"]

    def __getitem__(self, rows: slice | Int64[Tensor, " n"]) -> "AugmentDraws":
        return AugmentDraws(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random resized crop, flip, colour jitter, grey, blur, solarize, normalise: torchvision's list, per image.

    Calling it draws and applies; `draw` and `apply` do so apart, for when the boxes are wanted.

    Attributes:
        size: side of the output, pixels.
        crop_scale: smallest and largest share of the area.
        crop_ratio: smallest and largest width / height.
        interpolation: how crops are resized, with antialiasing: "bilinear" (torchvision's default) or "bicubic".
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation and hue as torchvision's ColorJitter takes them; None for none.
        jitter_p: probability of jitter.
        grey_p: probability of grey.
        blur_p: probability of blur.
        blur_sigma: smallest and largest sigma, output pixels; the kernel reaches 3 sigma.
        solarize_p: probability of inverting the values above one half.
        mean: subtracted per channel, for values in [0, 1].
        std: divided by per channel.
    """

    size: int
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] | None = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(
        self, images: UInt8[Tensor, "B 3 S S"], sizes: Int64[Tensor, "B 2"], generator: torch.Generator
    ) -> Float[Tensor, "B 3 {self.size} {self.size}"]:
        """Augment a batch.

        Args:
            images: square images on any device; channels_last is fastest on a CPU.
            sizes: (height, width) of each original.
            generator: on the CPU, so that every device gives the same views.
        """
        return self.apply(images, self.draw(sizes, generator))

    def draw(self, sizes: Int64[Tensor, "B 2"], generator: torch.Generator) -> AugmentDraws:
        """Draw every parameter of every image; the number of draws depends on nothing but B."""
        boxes = sample_crops(sizes.cpu(), scale=self.crop_scale, ratio=self.crop_ratio, generator=generator)
        chance = torch.rand(len(sizes), 6, generator=generator)
        order = torch.randint(len(_ORDERS), (len(sizes),), generator=generator)
        low, high = _factor_range(self.jitter or (0.0, 0.0, 0.0, 0.0))
        jittered = chance[:, 1] < (self.jitter_p if self.jitter else 0.0)
        return AugmentDraws(
            boxes=boxes,
            flip=chance[:, 0] < self.flip,
            order=order.where(jittered, len(_ORDERS)),
            factors=low + (high - low) * torch.rand(len(sizes), 4, generator=generator),
            grey=chance[:, 2] < self.grey_p,
            blur=chance[:, 3] < self.blur_p,
            sigma=self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * chance[:, 4],
            solarize=chance[:, 5] < self.solarize_p,
        )

    def apply(
        self, images: UInt8[Tensor, "B 3 S S"], draws: AugmentDraws
    ) -> Float[Tensor, "B 3 {self.size} {self.size}"]:
        """Augment a batch with what was drawn for it."""
        out = torch.empty(len(images), 3, self.size, self.size, device=images.device)
        block = _BLOCK // (3 * self.size**2) if images.device.type == "cpu" else len(images)
        block = max(1, block)
        for start in range(0, len(images), block):
            part = slice(start, start + block)
            self._apply_to(out[part], images[part], draws[part])
        return out

    def _apply_to(
        self, out: Float[Tensor, "B 3 size size"], images: UInt8[Tensor, "B 3 S S"], draws: AugmentDraws
    ) -> None:
        """Augment a part of the batch, in place in its part of the output."""
        order = draws.order.argsort(stable=True)  # those that share an order of jitter come to lie side by side
        draws = draws[order]
        cut = crop(images, draws.boxes, self.size, rows=order, flip=draws.flip, interpolation=self.interpolation)
        out.copy_(cut).div_(255)
        _jitter_(out, draws, self.jitter or (0.0, 0.0, 0.0, 0.0))
        _where_drawn_(out, draws.grey, grey_)
        _where_drawn_(out, draws.blur, blur_, draws.sigma)
        _where_drawn_(out, draws.solarize, solarize_)
        mean, std = copy_to(torch.tensor([self.mean, self.std]), out.device)[:, :, None, None]
        out.sub_(mean).div_(std)
        if len(out) > 1:
            out.copy_(out[copy_to(order.argsort(), out.device)])


def _factor_range(jitter: tuple[float, float, float, float]) -> tuple[Float[Tensor, " 4"], Float[Tensor, " 4"]]:
    *around_one, hue = jitter
    low = [max(0.0, 1 - strength) for strength in around_one]
    return torch.tensor([*low, -hue]), torch.tensor([*(1 + strength for strength in around_one), hue])


def _jitter_(values: Float[Tensor, "B 3 H W"], draws: AugmentDraws, strengths: tuple[float, ...]) -> None:
    """Jitter images that are sorted by their order of operations, each run of one order at once."""
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
    values: Float[Tensor, "B 3 H W"],
    drawn: Bool[Tensor, " B"],
    operation: Callable[..., None],
    *strengths: Float[Tensor, " B"],
) -> None:
    """Work in place on the images that drew an operation, gathered and put back unless they are all."""
    if drawn.all():
        operation(values, *(copy_to(strength, values.device) for strength in strengths))
    elif drawn.any():
        rows = copy_to(drawn.nonzero()[:, 0], values.device)
        some = values[rows]
        operation(some, *(copy_to(strength[drawn], values.device) for strength in strengths))
        values[rows] = some
