"""Scorers of the pairs of a training step: their interface, the exact one, and the online one.

Shapes: b pairs, h x w pixels of a view, n images, l tokens of a feature map, d token width.
"""

from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from pairquality.encoder import FeatureEncoder, Triple, denormalize
from pairquality.foreground import ForegroundPCA, foreground_maps
from pairquality.score import PairScores, pair_scores
from pairquality.scorers.streaming_pca import StreamingPCA

Maps = tuple[Float[Tensor, "b l d"], Float[Tensor, "b l d"]]


@runtime_checkable
class PairScorer(Protocol):
    """Scores pairs of augmented views without gradients; autocast makes no difference.

    Attributes:
        needs_maps: whether `maps` are required.
    """

    needs_maps: bool

    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """Return the scores of each pair.

        Args:
            first: normalized views, as in training; the scorer knows their mean and std.
            second: the other view of each pair.
            maps: feature maps of these views, from the network in training.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state that training changes and later scores depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of `state_dict`."""
        ...


class Stateless:
    """Mixin for scorers that training does not change."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept an empty state."""
        assert not state, f"this scorer has no state, but was given {', '.join(state)}"


@torch.no_grad()
def score_tokens(pca: ForegroundPCA, first: Float[Tensor, "b l_a d"], second: Float[Tensor, "b l_b d"]) -> PairScores:
    """Return the scores of pairs from their tokens, computed in float32."""
    return pair_scores(first, second, foreground_maps(pca, first), foreground_maps(pca, second))


class ExactScorer(Stateless):
    """Score by a frozen encoder, as GenView does: the reference, at a cost above that of a ResNet-50 training step.

    Views are denormalized and passed to the encoder, which applies its own normalization.

    Args:
        encoder: from load_encoder, or FeatureEncoder(module, size, mean, std) of any network.
        pca: PCA fitted on that encoder.
        mean: mean of the views' normalization.
        std: standard deviation of the views' normalization.

    Raises:
        ValueError: the PCA belongs to another encoder.
    """

    needs_maps = False

    def __init__(self, encoder: FeatureEncoder, pca: ForegroundPCA, *, mean: Triple, std: Triple) -> None:
        pca.validate_encoder(encoder)
        self.encoder, self.pca, self.mean, self.std = encoder, pca, mean, std

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; `maps` are ignored."""
        images = denormalize(torch.cat([first, second]).float(), self.mean, self.std)
        return score_tokens(self.pca, *self.encoder(images).chunk(2))


class OnlineScorer:
    """Score by the feature maps that training has just computed, without any pretrained encoder.

    The foreground direction follows the network: it is updated every few steps from some of the tokens.

    Args:
        pca_interval: steps between updates of the PCA.
        tokens: tokens per update over all processes, from whole images evenly spaced in the batch.
        group: processes that train together.
        options: arguments of StreamingPCA.
    """

    needs_maps = True

    def __init__(
        self, *, pca_interval: int = 32, tokens: int = 1024, group: dist.ProcessGroup | None = None, **options: Any
    ) -> None:
        self.pca_interval, self.tokens, self.group = pca_interval, tokens, group
        self.streaming = StreamingPCA(group=group, **options)
        self.steps = 0

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b c h w"], second: Float[Tensor, "b c h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; the views themselves are ignored.

        Raises:
            ValueError: maps are missing, or have no tokens inside their border.
        """
        if maps is None:
            raise ValueError("expected the feature maps of the views, got None; give maps=(first, second)")
        if self.steps % self.pca_interval == 0:
            self.streaming.update(self._some(*maps))
        self.steps += 1
        return score_tokens(self.streaming.pca, *maps)

    def _some(self, first: Tensor, second: Tensor) -> Float[Tensor, "n l d"]:
        """Return the tokens of evenly spaced images, independent of the number of processes if it divides the batch."""
        ranks = 1 if self.group is None else self.group.size()
        images = max(1, self.tokens // (2 * first.shape[1]))
        distance = max(1, len(first) * ranks // images)
        return torch.cat([first[::distance], second[::distance]])

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the state of StreamingPCA."""
        return {"steps": self.steps, **self.streaming.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of `state_dict`; later scores are bit-identical."""
        self.steps = state["steps"]
        self.streaming.load_state_dict({name: value for name, value in state.items() if name != "steps"})
