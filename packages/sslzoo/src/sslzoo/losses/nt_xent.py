"""NT-Xent: classify the other view of the same image among the views of all images.

Shapes: B images, N views of other images, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sslzoo.losses.reduction import require_two_images, upcast, weighted_mean


def nt_xent(
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    *,
    temperature: float,
    others: Float[Tensor, "N D"] | None = None,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """l(1, 2) + l(2, 1) with l(i, j) = -log exp(z_i.z_j/T) / sum_{k != i} exp(z_i.z_k/T), k over all 2B + N views.

    https://arxiv.org/abs/2002.05709 eq. 1. A mean over images, as add_contrastive_loss of google-research/simclr
    objective.py; the paper's mean over 2B views is half of it. Computed in float32 or higher, also under autocast.

    Args:
        first: L2-normalized.
        second: L2-normalized; row i is the other view of image i.
        temperature: T.
        others: L2-normalized, additional negatives (the views of other ranks).
        weights: per-image factors of the terms of both views.

    Raises:
        ValueError: there are no negatives.
    """
    images = len(first)
    require_two_images(images + (0 if others is None else len(others)), "NT-Xent")
    with torch.autocast(first.device.type, enabled=False):
        views = upcast(torch.cat([first, second]))
        candidates = views if others is None else torch.cat([views, others.to(views.dtype)])
        itself = torch.eye(len(views), len(candidates), dtype=torch.bool, device=views.device)
        logits = (views @ candidates.T / temperature).masked_fill(itself, float("-inf"))
        other_view = torch.arange(len(views), device=views.device).roll(images)
        terms = functional.cross_entropy(logits, other_view, reduction="none")
        return weighted_mean(terms[:images] + terms[images:], weights)
