"""The images of each step: a seeded permutation of any length, computed without being stored, split among the ranks."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

_ROUNDS = 8


class TooFewImages(ValueError):
    """Raised if the images do not fill one step.

    Attributes:
        count: number of images.
    """

    def __init__(self, count: int, step: int) -> None:
        super().__init__(f"{count} images do not fill one step of {step}; lower batch_size, or pass drop_last=False")
        self.count = count


def check_at_least(lowest: int, **options: int) -> None:
    """Raise ValueError for an option below `lowest`, naming it."""
    for name, value in options.items():
        if value < lowest:
            raise ValueError(f"expected {name} of at least {lowest}, got {value}")


@dataclass(frozen=True, kw_only=True)
class EpochSampler:
    """Assigns the images of each epoch to steps and ranks.

    Step s of rank r of R reads positions [(s R + r) B, (s R + r + 1) B) of the epoch's order.

    Attributes:
        length: number of images.
        batch_size: images per step on each rank, B.
        seed: seed of the order.
        shuffle: whether to shuffle.
        drop_last: whether to drop the last, smaller step; otherwise it is split evenly among the ranks.
        rank: r.
        world_size: R.

    Raises:
        ValueError: there is no such rank, or a number is below 1.
        TooFewImages: the images do not fill one step and `drop_last` is set.
    """

    length: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size, world_size=self.world_size)
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"expected a rank of 0 to {self.world_size - 1}, got {self.rank}")
        if self.drop_last and self.steps == 0:
            raise TooFewImages(self.length, self.batch_size * self.world_size)

    @property
    def steps(self) -> int:
        """Return the number of steps per epoch of this rank."""
        whole = self.length // (self.batch_size * self.world_size)
        return whole + (not self.drop_last and len(self._piece(whole)) > 0)

    def require(self, start: int) -> None:
        """Check that an epoch can be started at a step.

        Raises:
            ValueError: there is no such step.
        """
        if not 0 <= start <= self.steps:
            raise ValueError(f"expected a start step of 0 to {self.steps}, got {start}")

    def positions(self, epoch: int, step: int) -> np.ndarray:
        """Return the positions of the images of this rank at a step, int64."""
        piece = self._piece(step)
        positions = np.arange(piece.start, piece.stop)
        return permute(positions, self.length, self.seed, epoch) if self.shuffle else positions

    def _piece(self, step: int) -> range:
        first = step * self.batch_size * self.world_size
        count = min(self.batch_size * self.world_size, self.length - first)
        start, stop = (first + count * r // self.world_size for r in (self.rank, self.rank + 1))
        return range(start, stop)


def permute(positions: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    """Map positions by a permutation of range(length) seeded by (seed, epoch).

    A Feistel network is a bijection of the smallest power of two not below `length`; values that fall outside the
    range pass through the network again until they fall inside (Black and Rogaway,
    https://web.cs.ucdavis.edu/~rogaway/papers/subset.pdf). Memory does not depend on `length`.

    Args:
        positions: int64 [n], each in [0, length).
        length: the number of elements permuted.
        seed: the run's seed.
        epoch: the epoch.

    Returns:
        int64 [n], each in [0, length); distinct for distinct positions.
    """
    assert positions.size == 0 or 0 <= positions.min() <= positions.max() < length
    bits = max(length - 1, 1).bit_length()
    bits = max(bits + bits % 2, 4)  # two halves of equal width
    keys = _round_keys(seed, epoch)
    values = _feistel(positions.astype(np.uint64), bits // 2, keys)
    while (outside := values >= length).any():
        values[outside] = _feistel(values[outside], bits // 2, keys)
    return values.astype(np.int64)


def _round_keys(seed: int, epoch: int) -> np.ndarray:
    digest = blake2b(f"order:{seed}:{epoch}".encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, "<u8")


def _feistel(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """One bijection of [0, 4**half)."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64 bits: the finalizer of SplitMix64 (https://doi.org/10.1145/2714064.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
