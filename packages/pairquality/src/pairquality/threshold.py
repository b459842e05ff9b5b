"""Where the foreground begins: thresholds that make a given share of the tokens foreground.

Shapes: t tokens.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

HISTOGRAM_BINS = 200
"""As tools/clip_pca/extract_features_pca.py of https://github.com/xiaojieli0903/genview."""

ThresholdRule = Literal["quantile", "histogram"]


def threshold_at(projections: Float[Tensor, " t"], share: float, rule: ThresholdRule) -> float:
    """The threshold by one of the two rules."""
    rules = {"quantile": quantile_threshold, "histogram": histogram_threshold}
    if rule not in rules:
        raise ValueError(f'threshold_rule = {rule!r}: give "quantile" or "histogram".')
    return rules[rule](projections, share)


def quantile_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """Halfway between the least foreground and the greatest background projection; right to one token."""
    ordered = projections.double().sort(descending=True).values
    foreground = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return float(ordered[foreground - 1] + ordered[foreground]) / 2


def histogram_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """GenView's code: the left edge of the first of 200 bins up to which 1 - share of the tokens lie.

    Where empty bins follow that bin, the edge of the last of them. The code's share is 0.35.
    """
    counts, edges = np.histogram(projections.cpu().numpy(), bins=HISTOGRAM_BINS)
    cumulative = np.cumsum(counts) / counts.sum()
    reached = cumulative[np.searchsorted(cumulative, 1 - share)]
    return float(edges[np.searchsorted(cumulative, reached, side="right") - 1])
