"""Labels carried from frames that have them to one that has none, by the likeness of their features.

https://github.com/facebookresearch/dino, eval_video_segmentation.py at 7c446df, after https://arxiv.org/abs/1905.11954.

Shapes: c channels, k classes, f frames with labels, rows x columns of the maps, p = rows * columns places, s some of
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

LIKENESSES = 2**25
"""Computed at once: 128 MB."""


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """Which labels count; the official script's.

    Attributes:
        frames: the first one and so many before the one that is asked about.
        radius: of the square window around a place that is looked at, in places; None looks everywhere.
        neighbours: the most alike places, over all frames.
        temperature: of their weights exp(cosine / temperature).
    """

    frames: int = 7
    radius: int | None = 12
    neighbours: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        least = min(self.neighbours, 1 if self.radius is None else self.radius)
        if self.frames < 0 or least < 1 or self.temperature <= 0:
            raise ValueError(f"{self}: frames from 0, neighbours and radius from 1, temperature above 0")


def propagate(
    target: Float[Tensor, "c rows columns"],
    sources: Sequence[Float[Tensor, "c rows columns"]],
    labels: Sequence[Float[Tensor, "k rows columns"]],
    options: Propagation,
) -> Float[Tensor, "k rows columns"]:
    """The mean of the labels of the most alike places, weighted by exp(cosine / temperature).

    Args:
        target: features of the frame without labels.
        sources: features of those with labels.
        labels: theirs, any numbers that can be averaged.
        options: see `Propagation`.
    """
    rows, columns = target.shape[1:]
    asked = normalize(target.flatten(1).T, dim=1)
    known = normalize(torch.stack(list(sources)).flatten(2), dim=1)
    given = torch.stack(list(labels)).flatten(2).permute(0, 2, 1).flatten(0, 1)
    at_once = max(1, LIKENESSES // (len(known) * known.shape[2]))
    parts = []
    for start in range(0, len(asked), at_once):
        likeness = asked[start : start + at_once] @ known / options.temperature
        weights = likeness.exp()
        if options.radius is not None:
            weights = weights * _window(start, likeness.shape[1], rows, columns, options.radius).to(weights.device)
        weights = _largest(weights.permute(1, 0, 2).flatten(1), options.neighbours)
        parts.append(weights @ given / weights.sum(dim=1, keepdim=True))
    return torch.cat(parts).T.unflatten(1, (-1, columns))


def _largest(weights: Float[Tensor, "s _"], count: int) -> Float[Tensor, "s _"]:
    """All but the largest set to zero; those as large as the last of them stay."""
    least = weights.topk(min(count, weights.shape[1]), dim=1).values[:, -1:]
    return torch.where(weights < least, 0, weights)


def _window(start: int, count: int, rows: int, columns: int, radius: int) -> Bool[Tensor, "s p"]:
    """Which places each of some asks."""
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    near = [(axis[start : start + count, None] - axis).abs() <= radius for axis in (row, column)]
    return near[0] & near[1]
