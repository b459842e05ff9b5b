"""Spearman's rank correlation.

Shapes: n values.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def rank_correlation(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks; 0 where one never changes."""
    centred = [ranks - ranks.mean() for ranks in (_ranks(first), _ranks(second))]
    scale = centred[0].norm() * centred[1].norm()
    return float(centred[0] @ centred[1] / scale) if scale > 0 else 0.0


def _ranks(values: Float[Tensor, " n"]) -> Float64[Tensor, " n"]:
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2).double()[place]
