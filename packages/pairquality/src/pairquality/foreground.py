"""Foreground maps and ratios from the first principal component of an encoder's tokens.

Shapes: b images, l tokens, d token width.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pairquality.pca import ForegroundPCA
from pairquality.score import EPSILON


@torch.no_grad()
def foreground_maps(pca: ForegroundPCA, features: Float[Tensor, "b l d"]) -> Float[Tensor, "b l"]:
    """Soft foreground of each image: m = (p - min p) / (max p - min p + 1e-7) over its own tokens, 0 to 1.

    GenView, https://arxiv.org/abs/2403.12003. An image whose tokens are all equal gets 0 everywhere.
    """
    projections = pca.project(features)
    low, high = projections.aminmax(dim=1, keepdim=True)
    return (projections - low) / (high - low + EPSILON)


@torch.no_grad()
def foreground_ratio(pca: ForegroundPCA, features: Float[Tensor, "b l d"]) -> Float[Tensor, " b"]:
    """Share of each image's tokens that are foreground, p > threshold; 0 to 1."""
    return (pca.project(features) > pca.threshold).float().mean(dim=1)
