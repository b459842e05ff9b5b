"""How the distilled scorer is trained."""

from dataclasses import dataclass
from pathlib import Path

from pairquality.scorers.distilled import WIDTHS


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How to train.

    Attributes:
        steps: of the optimizer.
        pairs: images a step, two crops of each, or a crop of it and one of its view.
        views: folder of the images' synthetic views, if pairs will hold them in training.
        side: pixels of the small network's images; by default half the encoder's, but all of its where they are few.
        widths: channels of the network's stages, each of half the resolution of the one before.
        depths: residual blocks of each stage; by default one in each but the first.
        subspace: most dimensions of the encoder's token space that it reproduces.
        lr: AdamW's peak learning rate; it rises over a twentieth of the steps and falls by a cosine.
        weight_decay: AdamW's.
        count: most images trained on, chosen at random.
        held_out: most images kept for the rank correlation; at most a tenth of all.
        seed: of every draw.
    """

    steps: int = 20_000
    pairs: int = 32
    views: Path | None = None
    side: int | None = None
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = ()
    subspace: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.02
    count: int = 50_000
    held_out: int = 1000
    seed: int = 0

    def scorer_size(self, encoder_size: int) -> int:
        """Pixels of the small network's images."""
        return self.side or max(encoder_size // 2, min(encoder_size, 64))
