"""Vision transformers of a fixed input size, on images of any other.

Shapes: b batch, h x w pixels, l positions, d token width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate


class AnySize(nn.Module):
    """A network that takes images of any size; what a patch does not fill, right and below, is left out.

    The positions of timm's vision transformers are resampled as DINO resamples its own; other networks are called as
    they are.

    Raises:
        ValueError: an image is smaller than a patch.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """What the backbone gives."""
        patch = patch_of(self.backbone)
        if patch is None:
            return self.backbone(images)
        grid = (images.shape[-2] // patch[0], images.shape[-1] // patch[1])
        if 0 in grid:
            height, width = images.shape[-2:]
            raise ValueError(f"an image of {height} x {width} pixels is less than a patch of {patch[0]} x {patch[1]}")
        whole = images[..., : grid[0] * patch[0], : grid[1] * patch[1]]
        with _fitted(self.backbone, grid):
            try:
                return self.backbone(whole)
            except AssertionError as error:
                raise ValueError(f"the backbone takes no images of any size, as this test needs: {error}") from None


def patch_of(backbone: nn.Module) -> tuple[int, int] | None:
    """Height and width of a vision transformer's patches; None for other networks."""
    size = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


@contextmanager
def _fitted(backbone: nn.Module, grid: tuple[int, int]) -> Iterator[None]:
    """Inside, timm's network has the positions of this grid and does not insist on its own image size."""
    patches: Any = backbone.patch_embed
    positions = getattr(backbone, "pos_embed", None)
    own = getattr(patches, "grid_size", None)
    if own is None or not isinstance(positions, nn.Parameter):  # DINO's own networks resample by themselves
        yield
        return
    strict = patches.strict_img_size
    backbone.pos_embed = nn.Parameter(resampled_positions(positions.detach(), own, grid), requires_grad=False)
    patches.grid_size, patches.strict_img_size = grid, False
    try:
        yield
    finally:
        backbone.pos_embed = positions
        patches.grid_size, patches.strict_img_size = own, strict


def resampled_positions(
    positions: Float[Tensor, "1 l d"], own: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "1 _ d"]:
    """Positions of another grid, bicubic; those of class and register tokens, which come first, stay.

    https://github.com/facebookresearch/dino, vision_transformer.py at 7c446df: the scale is of the grid plus 0.1.
    """
    if grid == tuple(own):
        return positions
    first = positions.shape[1] - own[0] * own[1]
    map_ = positions[:, first:].unflatten(1, tuple(own)).permute(0, 3, 1, 2)
    scale = [(new + 0.1) / old for new, old in zip(grid, own, strict=True)]
    found = interpolate(map_, scale_factor=scale, mode="bicubic")
    assert found.shape[-2:] == torch.Size(grid)
    return torch.cat([positions[:, :first], found.flatten(2).transpose(1, 2)], dim=1)
