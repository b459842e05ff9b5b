"""VICReg: variance, invariance, covariance.

Shapes: B samples, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import off_diagonal_squared_sum, require_two_images, upcast, weighted_mean


def vicreg(
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """l s(z1, z2) + m (v(z1) + v(z2))/2 + n (c(z1) + c(z2)), https://arxiv.org/abs/2105.04906 eq. 6.

    s is the mean squared difference, v the hinge loss of the standard deviations, c the off-diagonal covariance. The
    halved variance term and the defaults are those of facebookresearch/vicreg main_vicreg.py (VICReg.forward); the
    paper's equation sums it. Computed in float32 or higher, also under autocast.

    Args:
        first: embeddings of the first view for the whole batch, gathered over all ranks.
        second: embeddings of the second view.
        invariance: l.
        variance: m.
        covariance: n.
        weights: per-sample factors of the terms of s; v and c are statistics of the batch.

    Raises:
        ValueError: fewer than two samples.
    """
    require_two_images(len(first), "VICReg")
    with torch.autocast(first.device.type, enabled=False):
        first, second = upcast(first), upcast(second)
        difference = weighted_mean((first - second).square().mean(dim=1), weights)
        hinge = (variance_hinge(first) + variance_hinge(second)) / 2
        redundancy = covariance_squared_sum(first) + covariance_squared_sum(second)
        return invariance * difference + variance * hinge + covariance * redundancy


def variance_hinge(embeddings: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """v = mean_d max(0, 1 - sqrt(var_d + 1e-4)), eq. 1 and 2; the constants are those of main_vicreg.py."""
    return functional.relu(1 - torch.sqrt(embeddings.var(dim=0) + 1e-4)).mean()


def covariance_squared_sum(embeddings: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """c = (1/D) sum_{i != j} cov_ij^2, eq. 3 and 4."""
    samples, dimensions = embeddings.shape
    centered = embeddings - embeddings.mean(dim=0)
    return off_diagonal_squared_sum(centered.T @ centered / (samples - 1)) / dimensions
