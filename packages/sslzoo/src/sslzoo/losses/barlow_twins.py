"""Barlow Twins: the cross-correlation of two views becomes the identity.

Shapes: B samples, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.losses.batch_statistics import off_diagonal_energy, require_two
from sslzoo.losses.reduction import precise


def barlow_twins(
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    *,
    off_diagonal: float = 0.0051,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2, https://arxiv.org/abs/2103.03230 eq. 1.

    Lambda and the sums (not means) are those of facebookresearch/barlowtwins main.py (BarlowTwins.forward). Computed in
    float32 at least, also under autocast.

    Args:
        first: projections of the first view, of the whole batch: over all ranks, where there are several.
        second: of the second view.
        off_diagonal: lambda.
        weights: one per sample, of the correlation; see cross_correlation.

    Raises:
        ValueError: fewer than two samples.
    """
    require_two(len(first), "Barlow Twins")
    with torch.autocast(first.device.type, enabled=False):
        correlation = cross_correlation(precise(first), precise(second), weights)
        return (correlation.diagonal() - 1).square().sum() + off_diagonal * off_diagonal_energy(correlation)


def cross_correlation(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], weights: Float[Tensor, "B"] | None = None
) -> Float[Tensor, "D D"]:
    """C_ij, the weighted correlation of dimension i of the first view with dimension j of the second.

    Means, variances and products are all weighted by w / sum(w). So a sample of weight 2 counts as two, one of weight 0
    as none, only ratios of weights matter, and two equal views have C_ii = 1 whatever the weights. Weights on the
    products alone would let C_ii exceed 1 and push equal views apart. Weights of one give the plain correlation; all
    zero give C = 0, which has no gradient.
    """
    weights = first.new_ones(len(first)) if weights is None else weights.to(first.dtype)
    share = (weights / weights.sum().clamp(min=torch.finfo(first.dtype).tiny))[:, None]
    return (share * standardised(first, share)).T @ standardised(second, share)


def standardised(points: Float[Tensor, "B D"], share: Float[Tensor, "B 1"]) -> Float[Tensor, "B D"]:
    """(z - mean) / sqrt(variance + 1e-5): main.py's batch norm without affine, over samples of these shares."""
    centred = points - (share * points).sum(dim=0)
    return centred * torch.rsqrt((share * centred.square()).sum(dim=0) + 1e-5)
