"""Masks over the code grid, the canvas of reverse crop, and compositing along a blurred mask.

Shapes: B images of a batch, L the cells of the square grid, row after row, H, W (S if square) sides in pixels.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn.functional import interpolate, pad

from genviews_core.images import read_image
from viewgen.seeding import generator_for

GENCL_FRACTION = 196 / 256  # GenCL masks all but the outermost of 16 x 16 cells

MaskKind = Literal["ring", "square", "random", "reverse_crop", "file"]


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """Rule by which the masked cells of each view are chosen.

    Attributes:
        kind: masked cells: "ring" the central square, "square" a square anywhere, "random" random cells, "reverse_crop"
            everything around the shrunk image, "file" the white parts of an image file.
        grid: cells along a side.
        fraction: masked fraction of the cells if no strength is given.
        image: the mask of kind "file".
    """

    kind: MaskKind
    grid: int
    fraction: float = GENCL_FRACTION
    image: Bool[Tensor, " L"] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"expected a masked_fraction in [0, 1], got {self.fraction}; give a fraction of the cells")
        if (self.image is None) == (self.kind == "file"):
            raise ValueError('expected mask="file" if and only if mask_file is given; give both or neither')

    @property
    def takes_strength(self) -> bool:
        """Whether a view's strength is its masked fraction; other rules are fixed by the condition or the mask file."""
        return self.kind in ("ring", "square", "random")

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for the manifest, with a mask file as hexadecimal digits."""
        if self.image is None:
            return {"mask": self.kind, "masked_share": self.fraction}
        bits = "".join(str(int(cell)) for cell in self.image.tolist())
        return {"mask": self.kind, "masked_cells": f"{int(bits, 2):x}"}

    def draw(self, seed: int, fraction: float | None = None) -> Bool[Tensor, " L"]:
        """Draw the mask of one view from its seed and its strength."""
        fraction = self.fraction if fraction is None else fraction
        if self.image is not None:
            return self.image
        if self.kind == "square":
            return random_square_mask(self.grid, fraction, generator_for(seed, "mask"))
        if self.kind == "random":
            return random_cells(self.grid, fraction, generator_for(seed, "mask"))
        return outpaint_mask(self.grid, fraction) if self.kind == "reverse_crop" else center_mask(self.grid, fraction)

    def canvas(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Prepare the images to encode: unchanged, or shrunk onto a larger canvas for reverse crop."""
        return shrink(images, self.grid, self.fraction) if self.kind == "reverse_crop" else images


def square_size(grid: int, fraction: float) -> int:
    """Return the size in cells of the square whose area is nearest to a fraction of the grid."""
    return int(grid * fraction**0.5 + 0.5)


def square(grid: int, top: int, left: int, side: int) -> Bool[Tensor, " L"]:
    """Return a mask that is True inside a square of cells."""
    mask = torch.zeros(grid, grid, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask.flatten()


def center_mask(grid: int, fraction: float = GENCL_FRACTION) -> Bool[Tensor, " L"]:
    """Mask the central square and keep the ring around it: GenCL's mask.

    Args:
        grid: cells along a side.
        fraction: masked fraction of the cells, rounded to the nearest square.
    """
    side = square_size(grid, fraction)
    return square(grid, (grid - side) // 2, (grid - side) // 2, side)


def random_square_mask(grid: int, fraction: float, generator: torch.Generator) -> Bool[Tensor, " L"]:
    """Mask a square at a random position."""
    side = square_size(grid, fraction)
    top, left = torch.randint(grid - side + 1, (2,), generator=generator).tolist()
    return square(grid, top, left, side)


def random_cells(grid: int, fraction: float, generator: torch.Generator) -> Bool[Tensor, " L"]:
    """Mask random cells, exactly the fraction rounded to whole cells."""
    count = int(fraction * grid * grid + 0.5)
    order = torch.rand(grid * grid, generator=generator).argsort()
    return torch.zeros(grid * grid, dtype=torch.bool).index_fill_(0, order[:count], True)


def outpaint_mask(grid: int, fraction: float) -> Bool[Tensor, " L"]:
    """Mask everything around the central square: the mask of reverse crop.

    Args:
        grid: cells along a side.
        fraction: masked fraction of the cells; the rest is rounded to the nearest square.
    """
    return ~center_mask(grid, 1 - fraction)


def shrink(images: Float[Tensor, "B 3 H W"], grid: int, fraction: float) -> Float[Tensor, "B 3 H W"]:
    """Shrink the whole image into the square that ``outpaint_mask`` keeps: reverse crop's canvas.

    Its edges are repeated outwards, so that the codes along them do not see the border of an image.
    """
    height = images.shape[2]
    cell = height // grid
    side = square_size(grid, 1 - fraction)
    before, after = (grid - side) // 2 * cell, (grid - side - (grid - side) // 2) * cell
    small = interpolate(images, (side * cell, side * cell), mode="bicubic", antialias=True).clamp(0, 1)
    return pad(small, (before, after, before, after), mode="replicate")


def mask_from_file(path: str | os.PathLike[str], grid: int) -> Bool[Tensor, " L"]:
    """Convert an image file to a mask: cells with a mean above mid-gray are masked.

    Raises:
        UnreadableImage: if it is not an image.
        ValueError: if it masks no cell.
    """
    image = Image.fromarray(read_image(path).permute(1, 2, 0).numpy()).convert("L")
    mask = torch.from_numpy(np.array(image.resize((grid, grid), Image.Resampling.BOX))).flatten() > 127
    if not mask.any():
        raise ValueError(f"expected white cells (the ones to generate) in the mask {path}, got none")
    return mask


def composite(
    generated: Float[Tensor, "B 3 S S"], source: Float[Tensor, "B 3 S S"], masks: Bool[Tensor, "B L"]
) -> Float[Tensor, "B 3 S S"]:
    """Blend ``m generated + (1 - m) source``, where ``m`` is each image's mask, upsampled and blurred."""
    soft = torch.stack([blurred(mask.numpy().tobytes(), generated.shape[-1]) for mask in masks.cpu()])
    soft = soft[:, None].to(generated.device)
    return generated * soft + (1 - soft) * source


@lru_cache(maxsize=64)
def blurred(mask: bytes, size: int) -> Float[Tensor, "S S"]:
    """Upsample a uint8 grid bicubically and apply a Gaussian blur of radius ``size // 16 - 1``, as in the demo."""
    grid = int(len(mask) ** 0.5)
    cells = Image.fromarray(np.frombuffer(mask, np.uint8).reshape(grid, grid) * np.uint8(255))
    large = cells.resize((size, size)).filter(ImageFilter.GaussianBlur(max(0, size // 16 - 1)))
    return torch.from_numpy(np.asarray(large, dtype=np.float32) / 255)
