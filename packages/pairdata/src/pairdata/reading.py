"""Read one batch: images, their views and interpolated views, each file decoded to a square.

Legend: B images, K views of each, S side of the squares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genviews_core.pixel_range import Range
from pairdata.augment import Interpolation
from pairdata.batch import MixedViews, PairBatch
from pairdata.cache import SquareCache
from pairdata.decode import UnreadableImage, decode_square
from pairdata.index import ImageIndex
from pairdata.manifest import ViewsIndex

_UNNUMBERED = -1  # what the cache never keeps


@dataclass(frozen=True)
class Request:
    """A batch to read: which images, and in which epoch, which decides whose turn it is among many views."""

    positions: np.ndarray
    epoch: int


class AlignedViews:
    """The views of each image of an index, found by its position."""

    def __init__(self, views: ViewsIndex, index: ImageIndex):
        self.views = views
        self.first, self.counts = views.align(index.keys)
        if not self.counts.any():
            raise ValueError(
                f"no image under {index.root} has a view in {views.root}: keys such as {index.key(0)!r} and "
                f"{views.keys[0]!r} do not meet; give the folder the views were generated from"
            )

    def rows(self, positions: np.ndarray, slot: int, turn: int) -> np.ndarray:
        """For each image the row of the manifest that fills a slot, or -1; many views take turns in few slots."""
        counts = self.counts[positions]
        return np.where(slot < counts, self.first[positions] + (turn + slot) % np.maximum(counts, 1), -1)

    def path(self, row: int) -> Path | None:
        """Return the file of a row; None for row -1.

        Raises:
            ValueError: the file is a link that leaves the folder.
        """
        return self.views.path(row) if row >= 0 else None


class BatchReader:
    """Reads batches, in the main process or in workers; what it reads depends on the request alone.

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
    ):
        self.index, self.size = index, size
        self._options = {"fit": fit, "resize": resize, "interpolation": interpolation, "value_range": value_range}
        self.views, self.interpolated = views, interpolated
        self.slots = views_per_image if views else 0
        # Items are numbered: the images, then the rows of views, then those of interpolated.
        self._first_mixed = len(index) + (len(views.views) if views else 0)
        items = self._first_mixed + (len(interpolated.views) if interpolated else 0)
        self._cache = SquareCache(size, cache_bytes, items)

    def __getitem__(self, request: Request) -> tuple[PairBatch, dict[str, str]]:
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
        """Positions, pixels and sizes of the images; those of the next readable one for an unreadable one."""
        position = wanted.copy()
        pixels = np.empty((len(position), self.size, self.size, 3), np.uint8)
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
        """Read the views in some rows of a manifest (-1: none) over what stands there; return which were read."""

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
    ) -> MixedViews:
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
        return MixedViews(
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
        self._cache.keep(item, square, original)
        return True


def _channels_first(pixels: np.ndarray) -> UInt8[Tensor, "*B 3 S S"]:
    return torch.from_numpy(pixels).movedim(-1, -3)
