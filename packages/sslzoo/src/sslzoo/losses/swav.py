"""SwAV: each view predicts the cluster assignment of another view, with equal use of all clusters.

Shapes: V views, A of them with an assignment, B samples, N queued samples, K prototypes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.distributed import mean_over_ranks, world_size
from sslzoo.losses.reduction import upcast, weighted_mean


def swav(
    scores: Float[Tensor, "V B K"],
    *,
    assigned: Sequence[int] = (0, 1),
    queued: Float[Tensor, "A N K"] | None = None,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over a in `assigned` and views v != a of -q_a . log softmax(s_v/T), q_a = sinkhorn(s_a) without gradient.

    https://arxiv.org/abs/2006.09882 eq. 2 and section 3.2; defaults: facebookresearch/swav@06b1b7c main_swav.py.
    Computed in float32 or higher, also under autocast.

    Args:
        scores: s, inner products of unit embeddings with unit prototypes.
        assigned: indices of the views whose cluster assignment is predicted.
        queued: scores of past embeddings of each assigned view, which are clustered with the batch; different on
            every rank.
        temperature: T.
        epsilon: see sinkhorn.
        iterations: see sinkhorn.
        weights: per-sample factors of the terms; they do not change the assignments.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = upcast(scores)
        indices = list(assigned)
        shared = scores[indices].detach()
        batch = shared.shape[1]
        if queued is not None:
            shared = torch.cat([upcast(queued.detach()), shared], dim=1)
        targets = torch.stack([sinkhorn(view, epsilon=epsilon, iterations=iterations)[-batch:] for view in shared])
        cross_entropy = -torch.einsum("abk,vbk->bav", targets, torch.log_softmax(scores / temperature, dim=-1))
        own = torch.zeros(len(indices), len(scores), dtype=torch.bool, device=scores.device)
        own[range(len(indices)), indices] = True
        pairs = len(indices) * (len(scores) - 1)
        return weighted_mean(cross_entropy.masked_fill(own, 0.0).sum(dim=(1, 2)) / pairs, weights)


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "B K"], *, epsilon: float = 0.05, iterations: int = 3) -> Float[Tensor, "B K"]:
    """Return soft assignments, with rows that sum to 1 and equal use of all prototypes by the samples of all ranks.

    Sinkhorn-Knopp on exp(s/epsilon), https://arxiv.org/abs/2006.09882 section 3.2. The official factors 1/K and 1/B
    cancel and are omitted.

    Args:
        scores: scores of this rank's samples; ranks may hold different numbers of samples.
        epsilon: weight of the entropy; smaller values are closer to one-hot.
        iterations: number of normalizations over prototypes, then samples.
    """
    assignments = torch.exp(upcast(scores) / epsilon)
    for _ in range(iterations):
        assignments = assignments / (mean_over_ranks(assignments.sum(dim=0)) * world_size())
        assignments = assignments / assignments.sum(dim=1, keepdim=True)
    return assignments
