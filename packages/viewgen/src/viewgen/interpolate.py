"""Spherical interpolation between the conditions of two images, and the choice of the partner image.

Shapes: B vectors of a batch, N vectors of a pool, D their length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from viewgen.nearest_neighbors import ExactSearch
from viewgen.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """Choice of the partner image and the weight of interpolated views.

    Gen-SIS takes a random other image as partner (https://arxiv.org/abs/2412.01672); it does not publish alpha.

    Attributes:
        alpha: weight of the image itself: a constant, or (low, high) to draw uniformly from for each view.
        partner: "random" for any other image, "nearest" for the one of highest cosine similarity.
        from_k: views with smaller k are not interpolated.
    """

    alpha: float | tuple[float, float] = (0.3, 0.7)
    partner: Literal["random", "nearest"] = "random"
    from_k: int = 0

    def __post_init__(self) -> None:
        low, high = self.alpha_range
        if not 0 <= low <= high <= 1:
            raise ValueError(f"expected alpha in [0, 1] with low <= high, got {self.alpha}")
        if self.partner not in ("random", "nearest"):
            raise ValueError(f"expected partner 'random' or 'nearest', got {self.partner!r}; give one of them")

    @property
    def alpha_range(self) -> tuple[float, float]:
        """Return (low, high), which are equal for a constant alpha."""
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha, self.alpha)


def slerp(
    first: Float[Tensor, "B D"], second: Float[Tensor, "B D"], alpha: float | Float[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    """Interpolate on the great circle from ``second`` (alpha = 0) to ``first`` (alpha = 1).

    With u, v the unit vectors of first and second, theta their angle, and w the unit vector orthogonal to u in their
    plane, the direction is ``cos((1 - alpha) theta) u + sin((1 - alpha) theta) w``: well defined for parallel vectors,
    and for opposite ones, where a fixed orthogonal direction stands in for the missing plane. The length goes
    linearly from one vector's to the other's. Computed in float64.

    Args:
        first: vectors reached at alpha = 1.
        second: vectors reached at alpha = 0.
        alpha: the weight of ``first`` in [0, 1], one for all or one each.
    """
    u, v = first.double(), second.double()
    weight = torch.as_tensor(alpha, dtype=torch.float64, device=first.device).expand(len(first)).unsqueeze(1)
    length_u, length_v = u.norm(dim=1, keepdim=True), v.norm(dim=1, keepdim=True)
    u, v = u / length_u.clamp_min(1e-12), v / length_v.clamp_min(1e-12)
    cosine = (u * v).sum(dim=1, keepdim=True)
    rejection = v - cosine * u
    sine = rejection.norm(dim=1, keepdim=True)
    w = torch.where(sine > 1e-7, rejection / sine.clamp_min(1e-12), _orthogonal(u))
    angle = (1 - weight) * torch.atan2(sine, cosine)
    length = weight * length_u + (1 - weight) * length_v
    between = (length * (angle.cos() * u + angle.sin() * w)).to(first.dtype)
    return torch.where(weight == 1, first, torch.where(weight == 0, second, between))


def _orthogonal(u: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Return a unit vector orthogonal to each u: the axis on which u is shortest, orthogonalized."""
    axis = torch.zeros_like(u).scatter_(1, u.abs().argmin(dim=1, keepdim=True), 1.0)
    rejection = axis - (axis * u).sum(dim=1, keepdim=True) * u
    return rejection / rejection.norm(dim=1, keepdim=True).clamp_min(1e-12)


def random_partner(view: int, own: int, count: int) -> int:
    """Draw an index other than ``own`` uniformly from ``count``, with the view's seed.

    Raises:
        ValueError: if there is no other.
    """
    if count < 2:
        raise ValueError("expected at least two images with embeddings to interpolate, got fewer")
    drawn = int(torch.randint(count - 1, (1,), generator=generator_for(view, "partner")))
    return drawn + (drawn >= own)


def draw_alpha(view: int, interpolation: Interpolation) -> float:
    """Draw a view's alpha uniformly from the range."""
    low, high = interpolation.alpha_range
    return low + (high - low) * float(torch.rand((), generator=generator_for(view, "alpha"), dtype=torch.float64))


def nearest_partners(pool: np.ndarray, own: Sequence[int]) -> Int[Tensor, " B"]:
    """Return the row of highest cosine similarity to each row ``own`` of the pool, excluding itself; exact.

    Args:
        pool: array (N, D), possibly memory-mapped.
        own: rows to find neighbors of.

    Raises:
        ValueError: if the pool has fewer than two rows.
    """
    if len(pool) < 2:
        raise ValueError("expected at least two images with embeddings to interpolate, got fewer")
    queries = torch.from_numpy(np.asarray(pool[list(own)], dtype=np.float32))
    return ExactSearch(pool)(queries, torch.tensor(own), 1)[:, 0]
