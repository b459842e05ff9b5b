"""Functions that several losses share: numerical precision, the weighted mean, batch statistics.

Shapes: B samples, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_mean(terms: Float[Tensor, "B"], weights: Float[Tensor, "B"] | None) -> Float[Tensor, ""]:
    """Return (1/B) sum_i w_i t_i.

    The divisor is the batch size, not the sum of the weights, so that the mean over ranks is the mean over the joined
    batch. `weights=None` gives exactly the same result as weights of one.
    """
    return terms.mean() if weights is None else (terms * weights).mean()


def upcast(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert half precision to float32; float32 and float64 tensors are returned unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def off_diagonal_squared_sum(matrix: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    """Return the sum of the squared off-diagonal elements."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def require_two_images(images: int, method: str) -> None:
    """Raise ValueError for a batch of one image, which has neither variance nor negatives."""
    if images < 2:
        raise ValueError(f"expected at least 2 images over all ranks for {method}, got {images}; use a larger batch")
