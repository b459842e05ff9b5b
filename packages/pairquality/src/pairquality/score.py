"""Scores of pairs of views, and the loss weights made from them.

Shapes: b pairs (*b any shape of pairs), l tokens of a view, d token width.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from genviews_core.distributed import all_gather

EPSILON = 1e-7
"""Avoids division by zero for constant maps, as in GenView's code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairScores:
    """Cosine similarities of each pair.

    Attributes:
        foreground: s_f, the similarity of the foregrounds.
        background: s_b, the similarity of the backgrounds.
        quality: q = s_f - s_b, high if the views share the object but not its surroundings.
    """

    foreground: Float[Tensor, " b"]
    background: Float[Tensor, " b"]
    quality: Float[Tensor, " b"]


@torch.no_grad()
def pair_scores(
    features_a: Float[Tensor, "b l_a d"],
    features_b: Float[Tensor, "b l_b d"],
    maps_a: Float[Tensor, "b l_a"],
    maps_b: Float[Tensor, "b l_b"],
) -> PairScores:
    """Return GenView's scores: q = cos(z_f^a, z_f^b) - cos(z_b^a, z_b^b), eq. 10 to 12 of https://arxiv.org/abs/2403.12003.

    z_f is the mean of a view's tokens weighted by its map m, z_b the mean weighted by 1 - m. If a map is 0 everywhere,
    the similarity to its foreground is 0. Computed in float32 for features of any type, also under autocast.

    Args:
        features_a: tokens of the first views.
        features_b: tokens of the second views; their number may differ.
        maps_a: foreground maps of the first views, in [0, 1].
        maps_b: foreground maps of the second views.
    """
    foreground_a, background_a = _pooled(features_a.float(), maps_a.float())
    foreground_b, background_b = _pooled(features_b.float(), maps_b.float())
    foreground = cosine_similarity(foreground_a, foreground_b, dim=1, eps=1e-12)
    background = cosine_similarity(background_a, background_b, dim=1, eps=1e-12)
    return PairScores(foreground=foreground, background=background, quality=foreground - background)


def _pooled(
    features: Float[Tensor, "b l d"], maps: Float[Tensor, "b l"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """Return the means of the tokens, weighted by the maps and by their complements."""
    weights = torch.stack([maps, 1 - maps], dim=1)
    weights = weights / (weights.sum(dim=2, keepdim=True) + EPSILON)
    with torch.autocast(features.device.type, enabled=False):
        pooled = weights @ features
    return pooled[:, 0], pooled[:, 1]


@torch.no_grad()
def pair_weights(
    quality: Float[Tensor, "*b"],
    gamma: float = 1.0,
    *,
    mask: Bool[Tensor, "*b"] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, "*b"]:
    """Return loss weights of mean 1, w = B * softmax(gamma * q) (eq. 13 of https://arxiv.org/abs/2403.12003).

    Computed in float32 and detached. GenView's code normalizes over each process's batch (group None); with a group the
    mean is 1 over the pairs of all its processes, as for one process with the joined batch.

    Args:
        quality: q of each pair.
        gamma: inverse temperature of the softmax; 0 gives every pair weight 1.
        mask: pairs to include; the others get weight 0, and the mean is 1 over the included ones (GenView++'s
            normalization). If no pair is included, all weights are 0.
        group: processes whose pairs are normalized together; all must call.
    """
    logits = gamma * quality.float()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    count = logits.new_tensor(logits.numel()) if mask is None else mask.sum().float()
    peak = logits.max().clamp(min=torch.finfo(logits.dtype).min)
    total = (logits - peak).exp().sum()
    if group is not None:
        peaks, totals, counts = all_gather(torch.stack([peak, total, count]), group).unbind(dim=1)
        peak, count = peaks.max(), counts.sum()
        total = (totals * (peaks - peak).exp()).sum()
    return (logits - peak).exp() * (count / total.clamp(min=torch.finfo(total.dtype).tiny))


def rank_correlation(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    """Return Spearman's rank correlation of two lists of scores; 0 if one of them is constant."""
    from scipy.stats import spearmanr

    if first.unique().numel() < 2 or second.unique().numel() < 2:
        return 0.0
    result: Any = spearmanr(first.cpu().numpy(), second.cpu().numpy())
    return float(result.statistic)
