"""The precision every loss computes in, and how it turns its per-sample terms into one number."""

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_mean(terms: Float[Tensor, "B"], weights: Float[Tensor, "B"] | None) -> Float[Tensor, ""]:
    """(1/B) sum_i w_i t_i: the weights multiply each sample's term, then the batch mean is taken.

    The divisor is the batch size, never the sum of the weights, so that averaging over ranks gives the mean over the
    joined batch. `weights=None` is the same, bit for bit, as weights of one.
    """
    return terms.mean() if weights is None else (terms * weights).mean()


def precise(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision becomes float32; float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
