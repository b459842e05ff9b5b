"""The views of a folder by their manifest, and images read beside them.

Shapes: B pairs of a batch, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

import viewgen
from viewgen.images import key_path, read_image

ROWS = 16_384  # of a manifest held at a time


class About(NamedTuple):
    """What a manifest says of its first view, and how many it has."""

    generator: str
    strength: float | None
    side: int
    views: int


def manifest_of(views: Path) -> Path:
    """The manifest of a folder of views.

    Raises:
        ValueError: there is none.
    """
    if not (views / "manifest.parquet").is_file():
        raise ValueError(f"{views} has no manifest.parquet: run viewgen index {views}")
    return views / "manifest.parquet"


def about_views(manifest: Path) -> About:
    """What made the first view.

    Raises:
        ValueError: there is no view.
    """
    columns = ["generator", "strength", "width", "height"]
    with pq.ParquetFile(manifest) as file:
        total = file.metadata.num_rows
        first = next((batch.to_pylist()[0] for batch in file.iter_batches(batch_size=1, columns=columns)), None)
    if first is None:
        raise ValueError(f"{manifest} has no view")
    side = min(first["width"], first["height"])
    return About(first["generator"], first["strength"], side, total)


def keys_and_paths(manifest: Path, count: int | None = None) -> Iterator[tuple[list[str], list[str]]]:
    """Keys and paths of the manifest's views, some at a time; `count` of them, evenly spaced, or all."""
    with pq.ParquetFile(manifest) as file:
        total, start = file.metadata.num_rows, 0
        wanted = evenly(total, count)
        for batch in file.iter_batches(batch_size=ROWS, columns=["key", "path"]):
            chosen = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
            some = batch.take(chosen) if len(chosen) < len(batch) else batch
            start += len(batch)
            yield some.column("key").to_pylist(), some.column("path").to_pylist()


def evenly(total: int, count: int | None) -> np.ndarray:
    """`count` of so many places, evenly spaced; all if there are no more."""
    return np.arange(total) if count is None or count >= total else np.arange(count) * total // count


class Reader:
    """Squares of files, read by threads one batch ahead; what cannot be read is counted and left out.

    Attributes:
        lost: rows left out so far.
    """

    def __init__(self, size: int, *, batch_size: int, workers: int) -> None:
        self._size, self._batch_size, self._workers, self.lost = size, batch_size, max(1, workers), 0

    def __call__(self, rows: Iterable[Sequence[tuple[Path, str] | Tensor]]) -> Iterator[tuple[Tensor, ...]]:
        """A tensor for each place of a row: (folder, key) gives UInt8[B, 3, S, S], a tensor is stacked as it is."""
        with ThreadPoolExecutor(self._workers) as pool:
            ahead = None
            for batch in _batches(rows, self._batch_size):
                now, ahead = ahead, [pool.submit(self._read, row) for row in batch]
                yield from self._stack(now)
            yield from self._stack(ahead)

    def _read(self, row: Sequence[tuple[Path, str] | Tensor]) -> list[Tensor] | None:
        try:
            return [part if isinstance(part, Tensor) else read_image(key_path(*part), self._size) for part in row]
        except viewgen.UnreadableImage:
            return None

    def _stack(self, futures: list | None) -> Iterator[tuple[Tensor, ...]]:
        read = [future.result() for future in futures or ()]
        good = [row for row in read if row is not None]
        self.lost += len(read) - len(good)
        if good:
            yield tuple(torch.stack(column) for column in zip(*good, strict=True))


def _batches(rows: Iterable, size: int) -> Iterator[list]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
