"""One vector of an image seen at several sizes.

Shapes: b batch, h x w pixels, d feature width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

SCALES = (1.0, 2**-0.5, 0.5)
"""https://github.com/facebookresearch/dino, utils.py at 7c446df: multi_scale."""


class MultiScale(nn.Module):
    """The mean of a network's outputs over scales of its input, L2-normalised."""

    def __init__(self, network: nn.Module, scales: Sequence[float] = SCALES):
        super().__init__()
        self.network, self.scales = network, tuple(scales)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """[d] of each image."""
        seen = [
            images if scale == 1 else interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            for scale in self.scales
        ]
        return normalize(torch.stack([self.network(each) for each in seen]).mean(dim=0), dim=1)
