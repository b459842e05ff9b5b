"""Configuration of a distilled scorer's training."""

from dataclasses import dataclass
from pathlib import Path

WIDTHS = (32, 96, 192, 384)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Configuration of a distilled scorer's training.

    Attributes:
        steps: number of optimizer steps.
        pairs: pairs per step: two crops of an image, or a crop of the image and one of its synthetic view.
        views: folder of the images' synthetic views, if training will use such pairs.
        scorer_size: image size of the small network in pixels; by default half the encoder's, but at least 64 (or the
            encoder's own size, if that is smaller).
        widths: channels of the network's stages; each stage halves the resolution.
        depths: residual blocks of each stage; by default none in the first stage and one in the others.
        subspace: maximum number of dimensions of the encoder's token space that the network reproduces.
        lr: peak learning rate of AdamW, after a warm-up over 1/20 of the steps and before a cosine decay.
        weight_decay: weight decay of AdamW.
        count: maximum number of training images, chosen at random.
        held_out: maximum number of images held out for the rank correlation; at most a tenth of all.
        seed: seed of all random numbers.
    """

    steps: int = 20_000
    pairs: int = 32
    views: Path | None = None
    scorer_size: int | None = None
    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = ()
    subspace: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.02
    count: int = 50_000
    held_out: int = 1000
    seed: int = 0

    def resolved_size(self, encoder_size: int) -> int:
        """Return the image size of the small network in pixels."""
        return self.scorer_size or max(encoder_size // 2, min(encoder_size, 64))
