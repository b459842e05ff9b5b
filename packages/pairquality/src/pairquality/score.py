"""Scores of a pair of views: how alike their foregrounds and their backgrounds are.

Shapes: b pairs, l tokens of a view, d token width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

EPSILON = 1e-7
"""Keeps the quotients of flat maps finite, as in GenView's code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairScores:
    """Cosine similarities of each pair.

    Attributes:
        foreground: s_f, of the two foregrounds.
        background: s_b, of the two backgrounds.
        quality: q = s_f - s_b; high where the views share the object but not its surroundings.
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
    """GenView's scores: q = cos(z_f^a, z_f^b) - cos(z_b^a, z_b^b), eq. 10 to 12 of https://arxiv.org/abs/2403.12003.

    z_f is the mean of a view's tokens weighted by its map m, z_b the mean weighted by 1 - m; a map that is 0 everywhere
    has no foreground, and the similarity to it is 0. Computed in float32, whatever the type of the features, also under
    autocast.

    Args:
        features_a: tokens of the first views.
        features_b: tokens of the second views; their number may differ.
        maps_a: foreground maps of the first views, 0 to 1.
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
    """Means of the tokens, weighted by the maps and by their complements."""
    shares = torch.stack([maps, 1 - maps], dim=1)
    shares = shares / (shares.sum(dim=2, keepdim=True) + EPSILON)
    with torch.autocast(features.device.type, enabled=False):
        pooled = shares @ features
    return pooled[:, 0], pooled[:, 1]
