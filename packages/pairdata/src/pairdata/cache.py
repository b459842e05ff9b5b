"""Decoded squares kept in memory, so that a data set that fits is decoded once."""

import mmap

import numpy as np


class SquareCache:
    """The first `capacity` items of a numbered collection, each kept once it has been decoded.

    The memory is shared with forked worker processes: what one decodes, all find. Two that decode the same item at
    once write the same values. Pages are taken as they fill.

    Attributes:
        capacity: items 0 to capacity - 1 are kept; others never are.
    """

    def __init__(self, size: int, budget: int, items: int):
        """Reserve the space.

        Args:
            size: side of the squares, pixels.
            budget: bytes to use at most.
            items: how many items there are.
        """
        self.capacity = min(items, budget // (3 * size**2 + 9))
        self._pixels = _shared(np.uint8, self.capacity, size, size, 3)
        self._sizes = _shared(np.int32, self.capacity, 2)
        self._kept = _shared(np.bool, self.capacity)

    def __reduce__(self):
        """Where workers are not forked, nothing can be shared and they keep nothing."""
        return SquareCache, (1, 0, 0)

    def fetch(self, items: np.ndarray, pixels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Copy what is kept into the rows of pixels and sizes; return the rows that are not, int64."""
        within = np.flatnonzero((items >= 0) & (items < self.capacity))
        rows = within[self._kept[items[within]]]
        pixels[rows], sizes[rows] = self._pixels[items[rows]], self._sizes[items[rows]]
        return np.setdiff1d(np.arange(len(items)), rows, assume_unique=True)

    def keep(self, item: int, pixels: np.ndarray, size: tuple[int, int]) -> None:
        """Keep an item if it is one of those that are kept."""
        if 0 <= item < self.capacity:
            self._pixels[item], self._sizes[item] = pixels, size
            self._kept[item] = True  # only once its pixels are in place


def _shared(kind: type, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    memory = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))  # anonymous: not bounded by the size of /dev/shm
    return np.frombuffer(memory, kind, count).reshape(shape)
