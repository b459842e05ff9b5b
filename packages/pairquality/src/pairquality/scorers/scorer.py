"""What scores the pairs of a training step.

Shapes: b pairs, h x w pixels of a view, l tokens of its feature map, d token width.
"""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pairquality.foreground import foreground_maps
from pairquality.pca import ForegroundPCA
from pairquality.score import PairScores, pair_scores

Maps = tuple[Float[Tensor, "b l d"], Float[Tensor, "b l d"]]


class PairScorer(Protocol):
    """Scores pairs of augmented views, without gradients, alike under autocast and without it.

    Attributes:
        needs_maps: whether `maps` must be given.
    """

    needs_maps: bool

    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """The scores of each pair.

        Args:
            first: views as the trainer has them, normalised; the scorer was told with what mean and std.
            second: the other view of each pair.
            maps: of these very views, from the networks in training.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that later scores depend on and that training has changed."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        ...


class Stateless:
    """The state of a scorer that training does not change."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
        assert not state, f"this scorer has no state, but was given {', '.join(state)}"


@torch.no_grad()
def score_tokens(pca: ForegroundPCA, first: Float[Tensor, "b l_a d"], second: Float[Tensor, "b l_b d"]) -> PairScores:
    """Scores of pairs from their tokens, whatever the tokens' type, in float32."""
    return pair_scores(first, second, foreground_maps(pca, first), foreground_maps(pca, second))
