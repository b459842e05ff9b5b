"""How a learning rate falls over a training, as pure functions; nothing to save, nothing to resume."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 to 0.

    Attributes:
        per_step: whether it moves at every step (BYOL), or at every epoch (MoCo v3, SimSiam, DINO, VICReg).
    """

    per_step: bool = False

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """What the peak rate is multiplied by.

        Args:
            epoch: counted from 0.
            epochs: of the whole training.
            share: of this epoch that is done, in [0, 1).
        """
        done = (epoch + (share if self.per_step else 0.0)) / epochs
        return 0.5 + 0.5 * math.cos(math.pi * done)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Constant but for some epochs.

    Attributes:
        at: where it falls, as shares of the training, so that a shorter training falls there too.
        by: what it is multiplied by at each.
    """

    at: tuple[float, ...]
    by: float

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """As `Cosine.factor`."""
        return self.by ** sum(epoch >= round(place * epochs) for place in self.at)


Schedule = Cosine | Steps

BY_EPOCH = Cosine()
"""What most protocols use."""
