"""What a backbone knows of the places in an image: the patch tokens of a transformer, a ResNet's last map.

Shapes: b batch, h x w pixels, d feature width, c channels, rows x columns of the map.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_eval.any_size import AnySize, patch_of, prefix_of


class OutputAndMap(nn.Module):
    """A network's own output and its last map, of images of any size, in one pass.

    The map of a vision transformer (of timm or of DINO's own code) is the patch tokens after its last norm; that of a
    ResNet what its `layer4` gives.

    Raises:
        ValueError: the backbone has neither, or its tokens are not one a patch.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        parts = dict(backbone.named_children())
        transformer = patch_of(backbone) is not None and "blocks" in parts and "norm" in parts
        if not transformer and "layer4" not in parts:
            name = type(backbone).__name__
            raise ValueError(f"{name} gives no patch tokens and no map: choose a vision transformer or a ResNet")
        self.network = AnySize(backbone)
        self.layer = "norm" if transformer else "layer4"
        self.prefix = prefix_of(backbone)

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b c rows columns"]]:
        """(output, map)."""
        seen: list[Tensor] = []
        layer = getattr(self.network.backbone, self.layer)
        hook = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            output = self.network(images)
        finally:
            hook.remove()
        return output, self._map(seen[-1], images.shape[-2:])

    def _map(self, found: Tensor, size: torch.Size) -> Float[Tensor, "b c rows columns"]:
        patch = patch_of(self.network.backbone)
        if patch is None:
            return found
        grid = (size[0] // patch[0], size[1] // patch[1])
        tokens = found[:, self.prefix :]
        if tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f"the backbone gives {tokens.shape[1]} patch tokens, an image has {grid[0] * grid[1]} patches"
            )
        return tokens.transpose(1, 2).unflatten(2, grid)
