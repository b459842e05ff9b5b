"""Copies told from other images: DINO's descriptor, its whitening, and the mean average precision of the nearest.

https://github.com/facebookresearch/dino, eval_copy_detection.py at 7c446df.

Shapes: b batch, n images, h x w pixels, c channels, rows x columns of a map, d descriptor width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_eval.feature_map import OutputAndMap
from ssl_eval.retrieval.ranking import ranks_among
from ssl_eval.retrieval.scores import average_precision

POWER = 4
"""Of the generalised mean, https://arxiv.org/abs/1711.02512; this and the next three are the official script's."""
FLOOR = 1e-6
"""What smaller features count as, so that a power can be taken."""
NEAREST = 20
"""Database images that a query is given; copies further off count as never found."""
SMALLEST = 1e-5
"""Share of the largest variance that smaller ones are raised to before whitening."""


class CopyDescriptor(nn.Module):
    """[the network's own output; generalised mean of its map]: class token and patch tokens, or a ResNet's last map."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.network = OutputAndMap(backbone)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector an image."""
        output, found = self.network(images)
        return torch.cat([output, generalised_mean(found)], dim=1)


def generalised_mean(found: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b c"]:
    """The fourth root of the mean fourth power over a map, of values clamped to be positive."""
    return found.clamp(min=FLOOR).pow(POWER).mean(dim=(2, 3)).pow(1 / POWER)


@dataclass(frozen=True, eq=False)
class Whitening:
    """(x - mean) W^T."""

    mean: Float[Tensor, " d"]
    directions: Float[Tensor, "d d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> "Whitening":
        """The inverse square root of second moments; they are not centred, as those of the official script are not."""
        exact = features.double()
        moments = exact.T @ exact / len(exact)
        variances, vectors = torch.linalg.eigh(moments)
        variances = variances.clamp(min=SMALLEST * float(variances.max()))
        directions = vectors.T / variances.sqrt()[:, None]
        return cls(exact.mean(dim=0).to(features.dtype), directions.to(features.dtype))

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The features, whitened."""
        return (features - self.mean) @ self.directions.T


def copy_precision(
    queries: Float[Tensor, "n d"],
    originals: Float[Tensor, "_ d"],
    copied: Sequence[Int[Tensor, " _"]],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    device: str | torch.device | None = None,
) -> list[float]:
    """Average precision of each query, from 0 to 1, among the NEAREST it is given.

    Args:
        queries: descriptors.
        originals: descriptors of the database that holds what was copied.
        copied: for each query the rows of its originals, at least one.
        distractors: further images of the database, in blocks.
        device: where to compare.
    """
    ranks = ranks_among(queries, originals, copied, distractors=distractors, device=device)
    return [average_precision(each[each < NEAREST], len(each)) for each in ranks]
