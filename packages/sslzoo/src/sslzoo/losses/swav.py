"""SwAV: each view predicts the cluster of another, while all clusters are kept equally full.

Shapes: V views, A of them with an assignment, B samples, N queued samples, K prototypes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.gather import mean_over_ranks, world_size
from sslzoo.losses.reduction import precise, weighted_mean


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

    https://arxiv.org/abs/2006.09882 eq. 2 and section 3.2; defaults: facebookresearch/swav@06b1b7c main_swav.py. In
    float32 at least, also under autocast.

    Args:
        scores: s, inner products of unit embeddings with unit prototypes.
        assigned: which views have their cluster computed.
        queued: scores of past embeddings, of each assigned view, that share the clusters with the batch. Each rank
            brings other ones.
        temperature: T.
        epsilon: see sinkhorn.
        iterations: see sinkhorn.
        weights: one per sample, multiplies its term; the assignment takes no notice.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = precise(scores)
        places = list(assigned)
        shared = scores[places].detach()
        batch = shared.shape[1]
        if queued is not None:
            shared = torch.cat([precise(queued.detach()), shared], dim=1)
        targets = torch.stack([sinkhorn(view, epsilon=epsilon, iterations=iterations)[-batch:] for view in shared])
        cross_entropy = -torch.einsum("abk,vbk->bav", targets, torch.log_softmax(scores / temperature, dim=-1))
        own = torch.zeros(len(places), len(scores), dtype=torch.bool, device=scores.device)
        own[range(len(places)), places] = True
        pairs = len(places) * (len(scores) - 1)
        return weighted_mean(cross_entropy.masked_fill(own, 0.0).sum(dim=(1, 2)) / pairs, weights)


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "B K"], *, epsilon: float = 0.05, iterations: int = 3) -> Float[Tensor, "B K"]:
    """Rows that sum to 1, near softmax(s/epsilon), over which the samples of all ranks use each prototype alike.

    Sinkhorn-Knopp on exp(s/epsilon), https://arxiv.org/abs/2006.09882 section 3.2. The official factors 1/K and 1/B
    cancel and are left out.

    Args:
        scores: of this rank's samples; ranks may hold different numbers of them.
        epsilon: weight of the entropy; less is nearer to one-hot.
        iterations: each first balances the prototypes, then the samples.
    """
    share = torch.exp(precise(scores) / epsilon)
    for _ in range(iterations):
        share = share / (mean_over_ranks(share.sum(dim=0)) * world_size())
        share = share / share.sum(dim=1, keepdim=True)
    return share
