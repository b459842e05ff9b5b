"""GenView's way: a frozen encoder looks at the augmented views.

Shapes: b pairs, h x w pixels of a view.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pairquality.encoder import FeatureEncoder, Triple, denormalise
from pairquality.pca import ForegroundPCA
from pairquality.score import PairScores
from pairquality.scorers.scorer import Maps, Stateless, score_tokens


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
        pca.require(encoder)
        self.encoder, self.pca, self.mean, self.std = encoder, pca, mean, std

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; `maps` are of no use here."""
        images = denormalise(torch.cat([first, second]).float(), self.mean, self.std)
        return score_tokens(self.pca, *self.encoder(images).chunk(2))
