"""A vision transformer's positions for another image size.

Shapes: L and M tokens, the class token and one for each patch; D features.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

OFFSET = 0.1
"""facebookresearch/dino@7c446df vision_transformer.py adds it to the number of patches of a side."""


def resize_positions(positions: Float[Tensor, "1 L D"], side: int) -> Float[Tensor, "1 M D"]:
    """Positions of side x side patches, as `interpolate_pos_encoding` of facebookresearch/dino computes them.

    Bicubic without antialiasing, with the factor (side + 0.1) / old side; the class token keeps its position. timm's
    `dynamic_img_size` antialiases and has no offset.
    """
    old = math.isqrt(positions.shape[1] - 1)
    if side == old:
        return positions
    grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    factor = (side + OFFSET) / old
    resized = interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    assert resized.shape[-2:] == (side, side)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)
