"""VICReg: variance, invariance, covariance.

Shapes: B samples, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.batch_statistics import off_diagonal_energy, require_two
from sslzoo.losses.reduction import precise, weighted_mean


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

    s is the mean squared difference, v the shortfall of the standard deviations, c the covariance off the diagonal.
    The variance term is halved, and the defaults are those, of facebookresearch/vicreg main_vicreg.py (VICReg.forward);
    the paper's equation sums it. Computed in float32 at least, also under autocast.

    Args:
        first: embeddings of the first view, of the whole batch: over all ranks, where there are several.
        second: of the second view.
        invariance: l.
        variance: m.
        covariance: n.
        weights: one per sample, multiplies its term of s; v and c belong to the batch and have none.

    Raises:
        ValueError: fewer than two samples.
    """
    require_two(len(first), "VICReg")
    with torch.autocast(first.device.type, enabled=False):
        first, second = precise(first), precise(second)
        difference = weighted_mean((first - second).square().mean(dim=1), weights)
        shortfall = (variance_shortfall(first) + variance_shortfall(second)) / 2
        redundancy = covariance_energy(first) + covariance_energy(second)
        return invariance * difference + variance * shortfall + covariance * redundancy


def variance_shortfall(embeddings: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """v = mean_d max(0, 1 - sqrt(var_d + 1e-4)), eq. 1 and 2; the constants are those of main_vicreg.py."""
    return functional.relu(1 - torch.sqrt(embeddings.var(dim=0) + 1e-4)).mean()


def covariance_energy(embeddings: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """c = (1/D) sum_{i != j} cov_ij^2, eq. 3 and 4."""
    samples, dimensions = embeddings.shape
    centred = embeddings - embeddings.mean(dim=0)
    return off_diagonal_energy(centred.T @ centred / (samples - 1)) / dimensions
