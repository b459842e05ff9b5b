"""Masks over the code grid, and what goes with them: the canvas of reverse crop, and compositing along a blurred mask.

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

GENCL_FRACTION = 196 / 256  # GenCL paints all but the outermost of 16 x 16 cells

MaskKind = Literal["ring", "square", "random", "reverse_crop", "file"]


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """How the cells to paint are chosen for each view.

    Attributes:
        kind: "ring" paints the central square, "square" one anywhere, "random" cells anywhere, "reverse_crop" all
            around the shrunk image, "file" the white of a picture.
        grid: cells along a side.
        fraction: of the cells that is painted, where a view's strength does not say it.
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
            raise ValueError('mask="file" and mask_file belong together: give both or neither')

    @property
    def takes_strength(self) -> bool:
        """Whether a view's strength is its masked fraction; the others are bound to the condition or the picture."""
        return self.kind in ("ring", "square", "random")

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest says of it; a picture as hexadecimal digits."""
        if self.image is None:
            return {"mask": self.kind, "masked_share": self.fraction}
        bits = "".join(str(int(cell)) for cell in self.image.tolist())
        return {"mask": self.kind, "masked_cells": f"{int(bits, 2):x}"}

    def draw(self, seed: int, fraction: float | None = None) -> Bool[Tensor, " L"]:
        """The mask of one view, from its seed and its strength."""
        fraction = self.fraction if fraction is None else fraction
        if self.image is not None:
            return self.image
        if self.kind == "square":
            return random_square_mask(self.grid, fraction, generator_for(seed, "mask"))
        if self.kind == "random":
            return random_cells(self.grid, fraction, generator_for(seed, "mask"))
        return outpaint_mask(self.grid, fraction) if self.kind == "reverse_crop" else center_mask(self.grid, fraction)

    def canvas(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """What the codes are taken from: the images, or smaller on a larger canvas for reverse crop."""
        return shrink(images, self.grid, self.fraction) if self.kind == "reverse_crop" else images


def square_size(grid: int, fraction: float) -> int:
    """The side in cells of the square that is nearest to a fraction of the grid."""
    return int(grid * fraction**0.5 + 0.5)


def square(grid: int, top: int, left: int, side: int) -> Bool[Tensor, " L"]:
    """True inside a square of cells."""
    mask = torch.zeros(grid, grid, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask.flatten()


def center_mask(grid: int, fraction: float = GENCL_FRACTION) -> Bool[Tensor, " L"]:
    """The central square is painted, the ring around it stays: GenCL's mask.

    Args:
        grid: cells along a side.
        fraction: of the cells that is painted; the nearest square is taken.
    """
    side = square_size(grid, fraction)
    return square(grid, (grid - side) // 2, (grid - side) // 2, side)


def random_square_mask(grid: int, fraction: float, generator: torch.Generator) -> Bool[Tensor, " L"]:
    """A square at a random place is painted."""
    side = square_size(grid, fraction)
    top, left = torch.randint(grid - side + 1, (2,), generator=generator).tolist()
    return square(grid, top, left, side)


def random_cells(grid: int, fraction: float, generator: torch.Generator) -> Bool[Tensor, " L"]:
    """Cells anywhere are painted, exactly the fraction rounded to whole cells."""
    count = int(fraction * grid * grid + 0.5)
    order = torch.rand(grid * grid, generator=generator).argsort()
    return torch.zeros(grid * grid, dtype=torch.bool).index_fill_(0, order[:count], True)


def outpaint_mask(grid: int, fraction: float) -> Bool[Tensor, " L"]:
    """All around the central square is painted: the mask of reverse crop.

    Args:
        grid: cells along a side.
        fraction: of the cells that is painted; what remains becomes the nearest square.
    """
    return ~center_mask(grid, 1 - fraction)


def shrink(images: Float[Tensor, "B 3 H W"], grid: int, fraction: float) -> Float[Tensor, "B 3 H W"]:
    """Reverse crop's canvas: the whole image, smaller, where ``outpaint_mask`` paints nothing.

    Its edges are repeated outwards, so that the codes along them do not see the border of an image.
    """
    height = images.shape[2]
    cell = height // grid
    side = square_size(grid, 1 - fraction)
    before, after = (grid - side) // 2 * cell, (grid - side - (grid - side) // 2) * cell
    small = interpolate(images, (side * cell, side * cell), mode="bicubic", antialias=True).clamp(0, 1)
    return pad(small, (before, after, before, after), mode="replicate")


def mask_from_file(path: str | os.PathLike[str], grid: int) -> Bool[Tensor, " L"]:
    """A picture as a mask: cells whose mean is above mid-gray are painted.

    Raises:
        UnreadableImage: if it is not an image.
        ValueError: if it would paint nothing.
    """
    picture = Image.fromarray(read_image(path).permute(1, 2, 0).numpy()).convert("L")
    mask = torch.from_numpy(np.array(picture.resize((grid, grid), Image.Resampling.BOX))).flatten() > 127
    if not mask.any():
        raise ValueError(f"the mask {path} paints nothing: make white what is to be painted")
    return mask


def composite(
    painted: Float[Tensor, "B 3 S S"], source: Float[Tensor, "B 3 S S"], masks: Bool[Tensor, "B L"]
) -> Float[Tensor, "B 3 S S"]:
    """``m painted + (1 - m) source`` with ``m`` each image's mask, enlarged and blurred."""
    soft = torch.stack([blurred(mask.numpy().tobytes(), painted.shape[-1]) for mask in masks.cpu()])
    soft = soft[:, None].to(painted.device)
    return painted * soft + (1 - soft) * source


@lru_cache(maxsize=64)
def blurred(mask: bytes, size: int) -> Float[Tensor, "S S"]:
    """A grid of one byte per cell, bicubically enlarged; Gaussian blur of radius ``size // 16 - 1`` as in the demo."""
    grid = int(len(mask) ** 0.5)
    cells = Image.fromarray(np.frombuffer(mask, np.uint8).reshape(grid, grid) * np.uint8(255))
    large = cells.resize((size, size)).filter(ImageFilter.GaussianBlur(max(0, size // 16 - 1)))
    return torch.from_numpy(np.asarray(large, dtype=np.float32) / 255)
