"""Negative cosine similarity.

Shapes: B samples, D dimensions.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import upcast, weighted_mean


def negative_cosine(
    prediction: Float[Tensor, "B D"],
    target: Float[Tensor, "B D"],
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """-(p/|p|).(z/|z|), https://arxiv.org/abs/2011.10566 eq. 1, in float32 or higher, also under autocast.

    The caller detaches the target.
    """
    return weighted_mean(-functional.cosine_similarity(upcast(prediction), upcast(target), dim=1), weights)
