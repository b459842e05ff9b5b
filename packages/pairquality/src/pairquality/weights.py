"""Weights of pairs in a loss.

Shapes: b pairs; any other shape of pairs serves as well.
"""

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def pair_weights(
    quality: Float[Tensor, "*b"],
    gamma: float = 1.0,
    *,
    mask: Bool[Tensor, "*b"] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, "*b"]:
    """Weights with mean 1 that favour good pairs: w = B * softmax(gamma * q) (eq. 13 of https://arxiv.org/abs/2403.12003).

    Computed in float32 and detached. GenView's code normalises over each process's batch (group None); with a group
    the mean is 1 over the pairs of all its processes, as for one process with the joined batch.

    Args:
        quality: q of each pair.
        gamma: sharpness; 0 gives every pair weight 1.
        mask: pairs that count; the others get weight 0, and the mean is 1 over those that count (GenView++'s
            normalisation, exp(gamma * q) / mean of the nonzero ones). Where none counts, all weights are 0.
        group: processes whose pairs are weighed together; all must call.
    """
    logits = gamma * quality.float()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    count = logits.new_tensor(logits.numel()) if mask is None else mask.sum().float()
    peak = logits.max().clamp(min=torch.finfo(logits.dtype).min)
    total = (logits - peak).exp().sum()
    if group is not None:
        parts = [torch.stack([peak, total, count]) for _ in range(group.size())]
        dist.all_gather(parts, torch.stack([peak, total, count]), group=group)
        peaks, totals, counts = torch.stack(parts).unbind(dim=1)
        peak, count = peaks.max(), counts.sum()
        total = (totals * (peaks - peak).exp()).sum()
    return (logits - peak).exp() * (count / total.clamp(min=torch.finfo(total.dtype).tiny))
