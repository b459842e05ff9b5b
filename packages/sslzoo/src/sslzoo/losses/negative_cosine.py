"""Negative cosine similarity.

Shapes: B samples, D dimensions.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import precise, weighted_mean


def negative_cosine(
    prediction: Float[Tensor, "B D"],
    target: Float[Tensor, "B D"],
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """-(p/|p|).(z/|z|), https://arxiv.org/abs/2011.10566 eq. 1; in float32 at least, also under autocast.

    Stopping the gradient of the target is the caller's part.
    """
    return weighted_mean(-functional.cosine_similarity(precise(prediction), precise(target), dim=1), weights)
