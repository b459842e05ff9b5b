"""InfoNCE: classify the positive among the negatives.

Shapes: B samples, N negatives, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import upcast, weighted_mean


def info_nce(
    query: Float[Tensor, "B D"],
    positive: Float[Tensor, "B D"],
    negatives: Float[Tensor, "N D"] | None,
    *,
    temperature: float,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """-log exp(q.p/T) / (exp(q.p/T) + sum_n exp(q.n/T)), https://arxiv.org/abs/1911.05722 eq. 1.

    Computed in float32 or higher, also under autocast.

    Args:
        query: L2-normalized.
        positive: L2-normalized; row i belongs to query i.
        negatives: L2-normalized, shared by all queries; None: the positives of the other samples.
        temperature: T.
        weights: per-sample factors of the terms.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, positive = upcast(query), upcast(positive)
        if negatives is None:
            logits = query @ positive.T
            labels = torch.arange(len(query), device=query.device)
        else:
            logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.to(query.dtype).T], dim=1)
            labels = torch.zeros(len(query), dtype=torch.long, device=query.device)
        terms = functional.cross_entropy(logits / temperature, labels, reduction="none")
        return weighted_mean(terms, weights)
