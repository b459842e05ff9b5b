"""Read one batch: images, their views and interpolated views, each file decoded to a square, with a cache.

Legend: B images, K views of each, S x S pixels, C channels.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genviews_core.pixel_range import Range
from pairdata.augment import Interpolation
from pairdata.batch import InterpolatedViews, PairBatch
from pairdata.decode import UnreadableImage, decode_square
from pairdata.index import ImageIndex
from pairdata.manifest import ViewsIndex


class SquareCache:
    """Cache of decoded squares, so that a data set that fits into memory is decoded once.

    The memory is shared with forked worker processes. Two processes that decode the same item at the same time write
    the same values. Memory pages are allocated as they fill.

    Attributes:
        capacity: items 0 to capacity - 1 are cached, the others never.
    """

    def __init__(self, size: int, budget: int, items: int, channels: int = 3):
        """Reserve the memory.

        Args:
            size: height and width of the squares, pixels.
            budget: maximum number of bytes.
            items: number of items.
            channels: C.
        """
        self.capacity = min(items, budget // (channels * size**2 + 9))
        self._pixels = _shared(np.uint8, self.capacity, size, size, channels)
        self._sizes = _shared(np.int32, self.capacity, 2)
        self._cached = _shared(np.bool, self.capacity)

    def __reduce__(self):
        """Return an empty cache for worker processes that are not forked, which cannot share memory."""
        return SquareCache, (1, 0, 0)

    def fetch(self, items: np.ndarray, pixels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Copy cached items into the rows of pixels and sizes; return the other rows, int64."""
        within = np.flatnonzero((items >= 0) & (items < self.capacity))
        rows = within[self._cached[items[within]]]
        pixels[rows], sizes[rows] = self._pixels[items[rows]], self._sizes[items[rows]]
        return np.setdiff1d(np.arange(len(items)), rows, assume_unique=True)

    def store(self, item: int, pixels: np.ndarray, size: tuple[int, int]) -> None:
        """Store an item if it is one of the first `capacity`."""
        if 0 <= item < self.capacity:
            self._pixels[item], self._sizes[item] = pixels, size
            self._cached[item] = True  # after its pixels are written


def _shared(kind: type, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    memory = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))  # anonymous: not bounded by the size of /dev/shm
    return np.frombuffer(memory, kind, count).reshape(shape)


_UNNUMBERED = -1  # never cached


@dataclass(frozen=True)
class BatchRequest:
    """A batch to read: positions of images, and the epoch, which selects among several views of an image."""

    positions: np.ndarray
    epoch: int


class AlignedViews:
    """The views of each image of an index, by the image's position."""

    def __init__(self, views: ViewsIndex, index: ImageIndex):
        self.views = views
        self.first, self.counts = views.align(index.keys)
        if not self.counts.any():
            raise ValueError(
                f"no image under {index.root} has a view in {views.root}: keys such as {index.key(0)!r} and "
                f"{views.keys[0]!r} do not match; give the folder the views were generated from"
            )

    def rows(self, positions: np.ndarray, slot: int, turn: int) -> np.ndarray:
        """Return for each image the manifest row of the view in a slot, or -1; surplus views alternate."""
        counts = self.counts[positions]
        return np.where(slot < counts, self.first[positions] + (turn + slot) % np.maximum(counts, 1), -1)

    def path(self, row: int) -> Path | None:
        """Return the file of a row; None for row -1.

        Raises:
            ValueError: the file is a link that leaves the folder.
        """
        return self.views.path(row) if row >= 0 else None


class BatchReader:
    """Reads batches, in the main process or in workers; a batch depends only on the request.

    An image that cannot be read is replaced by the next one that can; a view that cannot be read counts as missing.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        size: int,
        fit: str,
        resize: int | None,
        views: AlignedViews | None,
        views_per_image: int,
        interpolated: AlignedViews | None,
        cache_bytes: int,
        interpolation: Interpolation = "bilinear",
        value_range: Range | None = None,
        channels: int = 3,
    ):
        self.index, self.size, self.channels = index, size, channels
        self._options = {"fit": fit, "resize": resize, "interpolation": interpolation, "value_range": value_range}
        self._options["channels"] = channels
        self.views, self.interpolated = views, interpolated
        self.slots = views_per_image if views else 0
        # Items are numbered: the images, then the rows of views, then those of interpolated.
        self._first_mixed = len(index) + (len(views.views) if views else 0)
        items = self._first_mixed + (len(interpolated.views) if interpolated else 0)
        self._cache = SquareCache(size, cache_bytes, items, channels)

    def __getitem__(self, request: BatchRequest) -> tuple[PairBatch, dict[str, str]]:
        """Read a batch; also return the files that could not be read, and why."""
        failures: dict[str, str] = {}
        position, real, real_sizes = self._real(request.positions, failures)
        views = np.repeat(real[:, None], self.slots, 1)
        sizes = np.repeat(real_sizes[:, None], 1 + self.slots, 1)
        exists = np.zeros((len(real), self.slots), bool)
        for slot in range(self.slots):
            assert self.views is not None
            rows = self.views.rows(position, slot, request.epoch * self.slots)
            exists[:, slot] = self._views(
                self.views, len(self.index), rows, views[:, slot], sizes[:, 1 + slot], failures
            )
        return PairBatch(
            real=_channels_first(real),
            views=_channels_first(views),
            view_exists=torch.from_numpy(exists),
            index=torch.from_numpy(position),
            label=torch.from_numpy(self.index.labels[position]),
            sizes=torch.from_numpy(sizes),
            mixed=self._mixed(position, request.epoch, real, real_sizes, failures) if self.interpolated else None,
        ), failures

    def _real(self, wanted: np.ndarray, failures: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions, pixels and sizes; an unreadable image is replaced by the next readable one."""
        position = wanted.copy()
        pixels = np.empty((len(position), self.size, self.size, self.channels), np.uint8)
        sizes = np.empty((len(position), 2), np.int64)
        read = self._fill(position, lambda row: self.index.path(int(position[row])), pixels, sizes, failures)
        for row in np.flatnonzero(~read):
            position[row] = self._next_readable(int(position[row]), pixels[row], sizes[row], failures)
        return position, pixels, sizes

    def _next_readable(self, position: int, pixels: np.ndarray, size: np.ndarray, failures: dict[str, str]) -> int:
        for step in range(1, len(self.index)):
            candidate = (position + step) % len(self.index)
            if self._decode(candidate, self.index.path(candidate), pixels, size, failures):
                return candidate
        raise UnreadableImage(f"none of the {len(self.index)} images under {self.index.root} can be read: {failures}")

    def _views(
        self,
        source: AlignedViews,
        first_item: int,
        rows: np.ndarray,
        pixels: np.ndarray,
        sizes: np.ndarray,
        failures: dict[str, str],
    ) -> np.ndarray:
        """Read the views of some manifest rows (-1: none) into `pixels`; return which were read."""

        def path_of(i: int) -> Path | None:
            try:
                return source.path(int(rows[i]))
            except ValueError as error:
                failures[str(source.views.root / source.views.files[int(rows[i])])] = str(error)
                return None

        items = np.where(rows >= 0, first_item + rows, _UNNUMBERED)
        return self._fill(items, path_of, pixels, sizes, failures)

    def _mixed(
        self, position: np.ndarray, epoch: int, real: np.ndarray, real_sizes: np.ndarray, failures: dict[str, str]
    ) -> InterpolatedViews:
        source = self.interpolated
        assert source is not None
        rows = source.rows(position, 0, epoch)
        keys = [source.views.partners[row] if row >= 0 else "" for row in rows.tolist()]
        items = np.array([self.index.keys.find(key) if key else _UNNUMBERED for key in keys], np.int64)
        mixed, partner = real.copy(), real.copy()
        sizes = np.repeat(real_sizes[:, None], 2, 1)
        exists = self._fill(
            items, lambda i: self.index.root / keys[i] if keys[i] else None, partner, sizes[:, 1], failures
        )
        exists &= self._views(source, self._first_mixed, rows, mixed, sizes[:, 0], failures)
        mixed[~exists], partner[~exists], sizes[~exists] = real[~exists], real[~exists], real_sizes[~exists, None]
        return InterpolatedViews(
            interpolated=_channels_first(mixed),
            partner=_channels_first(partner),
            alpha=torch.from_numpy(np.where(exists, source.views.alpha[rows], np.float32(1))),
            exists=torch.from_numpy(exists),
            sizes=torch.from_numpy(sizes),
        )

    def _fill(
        self,
        items: np.ndarray,
        path_of: Callable[[int], Path | None],
        pixels: np.ndarray,
        sizes: np.ndarray,
        failures: dict[str, str],
    ) -> np.ndarray:
        """Fill the rows of pixels and sizes from the cache or from files; return which rows were filled."""
        filled = np.ones(len(items), bool)
        for row in self._cache.fetch(items, pixels, sizes).tolist():
            path = path_of(row)
            filled[row] = path is not None and self._decode(int(items[row]), path, pixels[row], sizes[row], failures)
        return filled

    def _decode(self, item: int, path: Path, pixels: np.ndarray, size: np.ndarray, failures: dict[str, str]) -> bool:
        try:
            square, original = decode_square(path, self.size, **self._options)
        except UnreadableImage as error:
            failures[str(path)] = error.reason
            return False
        pixels[...], size[...] = square, original
        self._cache.store(item, square, original)
        return True


def _channels_first(pixels: np.ndarray) -> UInt8[Tensor, "*B C S S"]:
    return torch.from_numpy(pixels).movedim(-1, -3)
