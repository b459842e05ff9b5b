"""Feature maps of vision transformers and convolutional networks, for images of any size.

Shapes: b batch, h x w pixels, l positions, d width of output or tokens, c channels of images, k channels and rows x
columns of a feature map.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate


class VariableSizeViT(nn.Module):
    """A network that accepts images of any size; incomplete patches at the right and bottom are cropped.

    Networks that support any size (DINO's, timm's with `dynamic_img_size=True`, ResNets) are called directly. The
    position embeddings of timm's fixed-size vision transformers are resampled as in DINO.

    Raises:
        ValueError: an image is smaller than a patch, or the network does not support its size.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Return the output of the backbone."""
        patch, (height, width) = patch_of(self.backbone) or (1, 1), images.shape[-2:]
        grid = (height // patch[0], width // patch[1])
        if 0 in grid:
            raise ValueError(
                f"expected images of at least one patch, {patch[0]} x {patch[1]} pixels, got {height} x {width}"
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
                    f"expected a backbone that accepts images of any size, got one that does not accept {size} pixels "
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
    backbone.pos_embed = nn.Parameter(resample_positions(positions.detach(), own, grid), requires_grad=False)
    patches.grid_size, patches.strict_img_size = grid, False
    try:
        yield
    finally:
        backbone.pos_embed = positions
        patches.grid_size, patches.strict_img_size = own, True


def resample_positions(
    positions: Float[Tensor, "1 l d"], own: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "1 _ d"]:
    """Resample position embeddings bicubically to another grid; leading class and register tokens stay.

    https://github.com/facebookresearch/dino, vision_transformer.py at 7c446df: the scale is of the grid plus 0.1.
    """
    if grid == tuple(own):
        return positions
    first = positions.shape[1] - own[0] * own[1]
    map_ = positions[:, first:].unflatten(1, tuple(own)).permute(0, 3, 1, 2)
    scale = [(new + 0.1) / old for new, old in zip(grid, own, strict=True)]
    resized = interpolate(map_, scale_factor=scale, mode="bicubic")
    assert resized.shape[-2:] == torch.Size(grid)
    return torch.cat([positions[:, :first], resized.flatten(2).transpose(1, 2)], dim=1)


class OutputAndFeatureMap(nn.Module):
    """A network's own output and its last feature map in one pass, for images of any size.

    The map of a vision transformer (of timm or of DINO's own code) is the patch tokens after its last norm; that of a
    ResNet the output of its `layer4`.

    Raises:
        ValueError: the backbone has neither, or its tokens are not one a patch.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        parts = dict(backbone.named_children())
        transformer = patch_of(backbone) is not None and "blocks" in parts and "norm" in parts
        if not transformer and "layer4" not in parts:
            name = type(backbone).__name__
            raise ValueError(
                f"expected a backbone with patch tokens or a map, got {name}; choose a vision transformer or a ResNet"
            )
        self.network = VariableSizeViT(backbone)
        self.layer = "norm" if transformer else "layer4"
        self.prefix = prefix_of(backbone)

    def forward(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k rows columns"]]:
        """Return (output, map)."""
        seen: list[Tensor] = []
        layer = getattr(self.network.backbone, self.layer)
        hook = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            output = self.network(images)
        finally:
            hook.remove()
        return output, self._map(seen[-1], images.shape[-2:])

    def _map(self, output: Tensor, size: torch.Size) -> Float[Tensor, "b k rows columns"]:
        patch = patch_of(self.network.backbone)
        if patch is None:
            return output
        grid = (size[0] // patch[0], size[1] // patch[1])
        tokens = output[:, self.prefix :]
        if tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(f"expected {grid[0] * grid[1]} patch tokens from the backbone, got {tokens.shape[1]}")
        return tokens.transpose(1, 2).unflatten(2, grid)


class FeatureMapExtractor(nn.Module):
    """Return the last feature map of a network.

    The last stage of a ResNet or the patch tokens of a vision transformer, see `OutputAndFeatureMap`; for other timm
    networks the features before pooling; otherwise the module's own output, if it is a feature map.

    Args:
        backbone: the network.
        layer: name of a submodule whose output is taken instead.

    Raises:
        ValueError: there is no such layer.
    """

    def __init__(self, backbone: nn.Module, layer: str | None = None):
        super().__init__()
        layers = dict(backbone.named_modules())
        if layer is not None and layer not in layers:
            own = ", ".join(name for name, _ in backbone.named_children())
            raise ValueError(f"expected a layer of {own}, got {layer}")
        self.backbone, self.layer = backbone, layer
        self.patch = (patch_of(backbone) or (1, 1))[0] if "blocks" in layers else 1
        self.known = OutputAndFeatureMap(backbone) if "layer4" in layers or self.patch > 1 else None

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d r s"]:
        """Return the feature map of each image.

        Raises:
            ValueError: the network has no feature map, or patches do not fill the images.
        """
        if any(side % self.patch for side in images.shape[2:]):
            raise ValueError(
                f"expected images of a multiple of {self.patch} px, the patch size, got {list(images.shape[2:])}"
            )
        maps = self._run(images)
        if maps.ndim != 4:
            name = type(self.backbone).__name__
            raise ValueError(
                f"expected a map [b, c, rows, columns] from {name}, got {list(maps.shape)}; choose another layer"
            )
        width = getattr(self.backbone, "num_features", None)
        channels_last = self.layer is None and maps.shape[1] != width and maps.shape[3] == width
        return maps.permute(0, 3, 1, 2) if channels_last else maps

    def _run(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        if self.layer is not None:
            return _output_of(self.backbone, self.layer, images)
        if self.known is not None:
            return self.known(images)[1]
        before_pooling = getattr(self.backbone, "forward_features", self.backbone)
        return before_pooling(images)


@dataclass(frozen=True)
class FrozenMaps:
    """Images to float32 feature maps, without gradients."""

    network: nn.Module
    device: torch.device
    amp: torch.dtype | None

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d r s"]:
        """Return the feature maps, on the device."""
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            return self.network(images.to(self.device, non_blocking=True)).float()


def _output_of(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return the output of a submodule."""
    seen = []
    hook = network.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        network(images)
    finally:
        hook.remove()
    return seen[-1]
