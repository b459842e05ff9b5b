"""The last map of a network, whatever its kind: what a segmentation head looks at.

Shapes: b images, h x w pixels, d channels, r x s places of the map.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_eval.any_size import patch_of
from ssl_eval.feature_map import OutputAndMap


class LastMap(nn.Module):
    """Images to the last map.

    That of a ResNet, and the patch tokens of a vision transformer, see `OutputAndMap`; what other networks of timm give
    before pooling; or a module's own output where that is a map.

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
            raise ValueError(f"{type(backbone).__name__} has no layer {layer}; choose one of: {own}")
        self.backbone, self.layer = backbone, layer
        self.patch = (patch_of(backbone) or (1, 1))[0] if "blocks" in layers else 1
        self.known = OutputAndMap(backbone) if "layer4" in layers or self.patch > 1 else None

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d r s"]:
        """The map of each image.

        Raises:
            ValueError: the network gives no map, or patches do not fill the images.
        """
        if any(side % self.patch for side in images.shape[2:]):
            raise ValueError(f"images of {list(images.shape[2:])} px are no multiple of the patches' {self.patch} px")
        found = self._run(images)
        if found.ndim != 4:
            name = type(self.backbone).__name__
            raise ValueError(f"{name} gives {list(found.shape)} for a batch, no map: name a layer that gives one")
        width = getattr(self.backbone, "num_features", None)
        channels_last = self.layer is None and found.shape[1] != width and found.shape[3] == width
        return found.permute(0, 3, 1, 2) if channels_last else found

    def _run(self, images: Float[Tensor, "b 3 h w"]) -> Tensor:
        if self.layer is not None:
            return _output_of(self.backbone, self.layer, images)
        if self.known is not None:
            return self.known(images)[1]
        before_pooling = getattr(self.backbone, "forward_features", self.backbone)
        return before_pooling(images)


@dataclass(frozen=True)
class FrozenMaps:
    """Images to maps, float32, without gradients."""

    network: nn.Module
    device: torch.device
    amp: torch.dtype | None

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d r s"]:
        """The maps, on the device."""
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            return self.network(images.to(self.device, non_blocking=True)).float()


def _output_of(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What a submodule gives."""
    seen = []
    hook = network.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        network(images)
    finally:
        hook.remove()
    return seen[-1]
