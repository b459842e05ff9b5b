"""InfoNCE: tell the positive from the negatives.

Shapes: B samples, N negatives, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import precise, weighted_mean


def info_nce(
    query: Float[Tensor, "B D"],
    positive: Float[Tensor, "B D"],
    negatives: Float[Tensor, "N D"] | None,
    *,
    temperature: float,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """-log exp(q.p/T) / (exp(q.p/T) + sum_n exp(q.n/T)), https://arxiv.org/abs/1911.05722 eq. 1.

    Computed in float32 at least, also under autocast.

    Args:
        query: L2-normalised.
        positive: L2-normalised; row i belongs to query i.
        negatives: L2-normalised, shared by all queries. None: the positives of the other samples.
        temperature: T.
        weights: one per sample, multiplies its term.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, positive = precise(query), precise(positive)
        if negatives is None:
            logits = query @ positive.T
            labels = torch.arange(len(query), device=query.device)
        else:
            logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.to(query.dtype).T], dim=1)
            labels = torch.zeros(len(query), dtype=torch.long, device=query.device)
        terms = functional.cross_entropy(logits / temperature, labels, reduction="none")
        return weighted_mean(terms, weights)
