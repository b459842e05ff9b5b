"""Read pairs of images and views by a manifest.

Shapes: B pairs per batch, S height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import viewgen
from genviews_core.images import read_image
from viewgen.keys import key_path
from viewgen.manifest import Manifest, view_path

ROWS = 16_384  # rows of a manifest in memory at a time


class About(NamedTuple):
    """Generator settings of the first view of a manifest, and the number of its views."""

    generator: str
    strength: float | None
    side: int
    views: int


class View(NamedTuple):
    """A view listed in a manifest: its folder and path."""

    folder: Path
    path: str


def about_views(manifest: Manifest) -> About:
    """Return the generator settings of the first view."""
    columns = ["generator", "strength", "width", "height"]
    first = next(manifest.batches(1, columns)).to_pylist()[0]
    side = min(first["width"], first["height"])
    return About(first["generator"], first["strength"], side, sum(manifest.group_rows))


def keys_and_paths(manifest: Manifest, count: int | None = None) -> Iterator[tuple[list[str], list[str]]]:
    """Yield keys and paths of all views of a manifest, or of `count` evenly spaced ones, in batches."""
    start = 0
    wanted = evenly(sum(manifest.group_rows), count)
    for batch in manifest.batches(ROWS, ["key", "path"]):
        chosen = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        some = batch.take(chosen) if len(chosen) < len(batch) else batch
        start += len(batch)
        yield some.column("key").to_pylist(), some.column("path").to_pylist()


def evenly(total: int, count: int | None) -> np.ndarray:
    """Return `count` evenly spaced indices below `total`, or all if there are no more."""
    return np.arange(total) if count is None or count >= total else np.arange(count) * total // count


class Reader:
    """Reads images as squares, by threads one batch ahead; unreadable pairs are counted and skipped.

    Attributes:
        lost: number of skipped pairs so far.
    """

    def __init__(self, size: int, *, batch_size: int, workers: int) -> None:
        self._size, self._batch_size, self._workers, self.lost = size, batch_size, max(1, workers), 0

    def __call__(self, rows: Iterable[Sequence[tuple[Path, str] | Tensor]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield batches: (folder, key) and views become UInt8[B, 3, S, S], tensors are stacked."""
        with ThreadPoolExecutor(self._workers) as pool:
            ahead = None
            for batch in _batches(rows, self._batch_size):
                now, ahead = ahead, [pool.submit(self._read, row) for row in batch]
                yield from self._stack(now)
            yield from self._stack(ahead)

    def _read(self, row: Sequence[tuple[Path, str] | Tensor]) -> list[Tensor] | None:
        try:
            return [part if isinstance(part, Tensor) else read_image(_locate(part), self._size) for part in row]
        except viewgen.UnreadableImage:
            return None

    def _stack(self, futures: list | None) -> Iterator[tuple[Tensor, ...]]:
        read = [future.result() for future in futures or ()]
        good = [row for row in read if row is not None]
        self.lost += len(read) - len(good)
        if good:
            yield tuple(torch.stack(column) for column in zip(*good, strict=True))


def _locate(part: tuple[Path, str]) -> Path:
    """Return the file of a key or of a view, which must not be a link out of its folder."""
    return view_path(*part) if isinstance(part, View) else key_path(*part)


def _batches(rows: Iterable, size: int) -> Iterator[list]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
