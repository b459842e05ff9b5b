"""A backbone with its head.

Shapes: B samples, P projection dimensions, H x W pixels.
"""

from jaxtyping import Float
from torch import Tensor, nn


class Encoder(nn.Module):
    """A backbone and its head, both set to training mode (loaded backbones are in evaluation mode)."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.train()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B P"]:
        """The head's output for images."""
        return self.head(self.backbone(images))
