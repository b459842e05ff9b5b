"""Run vision transformers of a fixed input size on images of any size.

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
    """A network that accepts images of any size; incomplete patches at the right and bottom are cropped.

    Networks that support any size (DINO's, timm's with `dynamic_img_size=True`, ResNets) are called directly. The
    position embeddings of timm's fixed-size vision transformers are resampled as in DINO.

    Raises:
        ValueError: an image is smaller than a patch, or the network does not support its size.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        """Return the output of the backbone."""
        patch, (height, width) = patch_of(self.backbone) or (1, 1), images.shape[-2:]
        grid = (height // patch[0], width // patch[1])
        if 0 in grid:
            raise ValueError(
                f"an image of {height} x {width} pixels is smaller than a patch of {patch[0]} x {patch[1]}"
            )
        whole = images[..., : grid[0] * patch[0], : grid[1] * patch[1]]
        with _fitted(self.backbone, grid):
            try:
                return self.backbone(whole)
            except torch.OutOfMemoryError:
                raise
            except (AssertionError, RuntimeError) as error:
                size, reason = f"{whole.shape[-2]} x {whole.shape[-1]}", " ".join(str(error).split())
                raise ValueError(
                    f"expected a backbone that takes images of any size, got one that does not take {size} pixels "
                    f"({reason}); choose a ResNet, or a vision transformer of DINO's or timm's"
                ) from None


def patch_of(backbone: nn.Module) -> tuple[int, int] | None:
    """Return height and width of a vision transformer's non-overlapping patches; None for other networks."""
    patches: Any = getattr(backbone, "patch_embed", None)
    size = getattr(patches, "patch_size", None)
    if size is None:
        return None
    size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    projection = getattr(patches, "proj", None)
    tiles = not isinstance(projection, nn.Conv2d) or projection.stride == size
    return size if tiles else None  # PVT's patches overlap


def prefix_of(backbone: nn.Module) -> int:
    """Return the number of class and register tokens before a vision transformer's patch tokens.

    timm stores it as `num_prefix_tokens`; facebookresearch/dinov2 has one class token and `num_register_tokens`.
    """
    return int(getattr(backbone, "num_prefix_tokens", 1 + int(getattr(backbone, "num_register_tokens", 0))))


@contextmanager
def _fitted(backbone: nn.Module, grid: tuple[int, int]) -> Iterator[None]:
    """Temporarily give a fixed-size timm network the positions of this grid, and disable its size check."""
    patches: Any = getattr(backbone, "patch_embed", None)
    positions, own = getattr(backbone, "pos_embed", None), getattr(patches, "grid_size", None)
    strict = getattr(patches, "strict_img_size", False)  # otherwise, the network resamples by itself
    if not strict or own is None or not isinstance(positions, nn.Parameter):
        yield
        return
    backbone.pos_embed = nn.Parameter(resampled_positions(positions.detach(), own, grid), requires_grad=False)
    patches.grid_size, patches.strict_img_size = grid, False
    try:
        yield
    finally:
        backbone.pos_embed = positions
        patches.grid_size, patches.strict_img_size = own, True


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
