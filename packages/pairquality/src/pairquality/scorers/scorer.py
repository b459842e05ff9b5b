"""Scorers of the pairs of a training step: their interface, the exact one, and the online one.

Shapes: b pairs, h x w pixels of a view, n images, l tokens of a feature map, d token width.
"""

from typing import Any, Protocol

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from pairquality.encoder import FeatureEncoder, Triple, denormalize
from pairquality.foreground import ForegroundPCA, foreground_maps
from pairquality.score import PairScores, pair_scores
from pairquality.scorers.streaming_pca import StreamingPCA

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
            first: views as the trainer has them, normalized; the scorer was told with what mean and std.
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


class ExactScorer(Stateless):
    """Scores by a frozen encoder, which costs more than a ResNet-50's training step; the reference for the others.

    Views become images in [0, 1] again, and the encoder normalises these as it is used to.

    Args:
        encoder: of load_encoder, or FeatureEncoder(module, size, mean, std) of any network.
        pca: fitted on that encoder.
        mean: what the trainer subtracts from images in [0, 1].
        std: what it divides by.

    Raises:
        ValueError: the PCA is another encoder's.
    """

    needs_maps = False

    def __init__(self, encoder: FeatureEncoder, pca: ForegroundPCA, *, mean: Triple, std: Triple) -> None:
        pca.validate_encoder(encoder)
        self.encoder, self.pca, self.mean, self.std = encoder, pca, mean, std

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; `maps` are of no use here."""
        images = denormalize(torch.cat([first, second]).float(), self.mean, self.std)
        return score_tokens(self.pca, *self.encoder(images).chunk(2))


class OnlineScorer:
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
            ValueError: no maps were given, or they have no center inside their border.
        """
        if maps is None:
            raise ValueError("OnlineScorer needs the feature maps of the views: give maps=(first, second).")
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
