"""Barlow Twins: drive the cross-correlation of two views to the identity.

Shapes: B samples, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.losses.reduction import off_diagonal_squared_sum, require_two_images, upcast


def barlow_twins(
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    *,
    off_diagonal: float = 0.0051,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, https://arxiv.org/abs/2103.03230 eq. 1.

    Lambda and the sums (not means) are those of facebookresearch/barlowtwins main.py (BarlowTwins.forward). Computed in
    float32 or higher, also under autocast.

    Args:
        first: projections of the first view for the whole batch, gathered over all ranks.
        second: projections of the second view.
        off_diagonal: lambda.
        weights: per-sample weights of the correlation; see cross_correlation.

    Raises:
        ValueError: fewer than two samples.
    """
    require_two_images(len(first), "Barlow Twins")
    with torch.autocast(first.device.type, enabled=False):
        correlation = cross_correlation(upcast(first), upcast(second), weights)
        return (correlation.diagonal() - 1).square().sum() + off_diagonal * off_diagonal_squared_sum(correlation)


def cross_correlation(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], weights: Float[Tensor, "B"] | None = None
) -> Float[Tensor, "D D"]:
    """Return C_ij, the weighted correlation of dimension i of the first view with dimension j of the second.

    Means, variances and products are all weighted by w / sum(w). So a sample of weight 2 counts twice, one of weight 0
    is ignored, only ratios of weights matter, and equal views have C_ii = 1 for any weights. Weights on the products
    alone would let C_ii exceed 1 and push equal views apart. Weights of one give the plain correlation; all zero give
    C = 0, which has no gradient.
    """
    weights = first.new_ones(len(first)) if weights is None else weights.to(first.dtype)
    fractions = (weights / weights.sum().clamp(min=torch.finfo(first.dtype).tiny))[:, None]
    return (fractions * standardize(first, fractions)).T @ standardize(second, fractions)


def standardize(points: Float[Tensor, "B D"], fractions: Float[Tensor, "B 1"]) -> Float[Tensor, "B D"]:
    """Return (z - mean) / sqrt(variance + 1e-5), weighted: main.py's batch norm without affine parameters."""
    centered = points - (fractions * points).sum(dim=0)
    return centered * torch.rsqrt((fractions * centered.square()).sum(dim=0) + 1e-5)
