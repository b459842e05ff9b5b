"""No encoder beside the training: the network's own maps of these very views.

Shapes: b pairs, h x w pixels of a view, l tokens of a map, d token width.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from pairquality.score import PairScores
from pairquality.scorers.scorer import Maps, score_tokens
from pairquality.scorers.streaming_pca import StreamingPCA


class SelfScorer:
    """Scores by the feature maps that the training has just computed; works where pretrained encoders know nothing.

    What is foreground is found anew as the network learns, from a part of the tokens of every few steps.

    Args:
        every: steps from one look to the next.
        tokens: looked at, over all processes; whole images at even distances in the batch.
        group: processes that train together.
        options: of StreamingPCA.
    """

    needs_maps = True

    def __init__(
        self, *, every: int = 32, tokens: int = 1024, group: dist.ProcessGroup | None = None, **options: Any
    ) -> None:
        self.every, self.tokens, self.group = every, tokens, group
        self.streaming = StreamingPCA(group=group, **options)
        self.steps = 0

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; the views themselves are not looked at.

        Raises:
            ValueError: no maps were given, or they have no centre inside their border.
        """
        if maps is None:
            raise ValueError("SelfScorer needs the feature maps of the views: give maps=(first, second).")
        if self.steps % self.every == 0:
            self.streaming.update(self._some(*maps))
        self.steps += 1
        return score_tokens(self.streaming.pca, *maps)

    def _some(self, first: Tensor, second: Tensor) -> Float[Tensor, "n l d"]:
        """Images at even distances; the same ones however the batch is cut into ranks of whole distances."""
        ranks = 1 if self.group is None else self.group.size()
        images = max(1, self.tokens // (2 * first.shape[1]))
        distance = max(1, len(first) * ranks // images)
        return torch.cat([first[::distance], second[::distance]])

    def state_dict(self) -> dict[str, Any]:
        """Steps so far, and StreamingPCA's."""
        return {"steps": self.steps, **self.streaming.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, to the bit."""
        self.steps = state["steps"]
        self.streaming.load_state_dict({name: value for name, value in state.items() if name != "steps"})
