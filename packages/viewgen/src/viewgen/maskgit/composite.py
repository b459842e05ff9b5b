"""The official editing demo's last step: painted and source pixels meet along a blurred mask.

Shapes: B images of a batch, S their side in pixels, L the cells of the grid.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageFilter
from torch import Tensor


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
