"""Resize the position embeddings of vision transformers for images of another size.

Shapes: L and M tokens, the class token and one per patch; D features.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

OFFSET = 0.1
"""Added to the number of patches per side in facebookresearch/dino@7c446df vision_transformer.py."""


def resize_positions(positions: Float[Tensor, "1 L D"], rows: int, columns: int) -> Float[Tensor, "1 M D"]:
    """Resize position embeddings to rows x columns patches, as `interpolate_pos_encoding` of facebookresearch/dino.

    Bicubic without antialiasing, with scale factors (rows + 0.1) / side and (columns + 0.1) / side of the square
    pretrained grid; the class token keeps its embedding. timm's `dynamic_img_size` antialiases and has no offset.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if rows == columns == side:
        return positions
    grid = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factors = ((rows + OFFSET) / side, (columns + OFFSET) / side)
    resized = interpolate(grid, scale_factor=factors, mode="bicubic")
    assert resized.shape[-2:] == (rows, columns)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def resize_patch_positions(positions: Float[Tensor, "1 L D"], rows: int, columns: int) -> Float[Tensor, "1 M D"]:
    """Resize position embeddings without class token to rows x columns patches, as DINOv2 with registers does.

    Bicubic with antialiasing, to an explicit size: facebookresearch/dinov2@b8931f7 hub/backbones.py, dinov2_vits14_reg.
    """
    side = math.isqrt(positions.shape[1])
    grid = positions.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
    return resized.flatten(2).transpose(1, 2)


def fit_positions(tensors: Mapping[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """Return a vision transformer's tensors with position embeddings for images of another size.

    Args:
        tensors: under timm's names; with registers, the positions have no class token.
        image_size: in pixels.

    Raises:
        ValueError: the size is not a multiple of the patch size.
    """
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    if image_size % patch:
        raise ValueError(f"expected an image_size that is a multiple of the patch size {patch}, got {image_size}")
    side = image_size // patch
    resize = resize_patch_positions if "reg_token" in tensors else resize_positions
    return {**tensors, "pos_embed": resize(tensors["pos_embed"], side, side)}
