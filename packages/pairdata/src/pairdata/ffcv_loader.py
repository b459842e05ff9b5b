"""Batches of pairs from records, decoded by threads of this process, in the same order as from plain folders.

Legend: B images per batch, K views of each, S size of the squares.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from pairdata.batch import PairBatch
from pairdata.record_reader import PendingBatch, RecordReader
from pairdata.records import Records
from pairdata.sampling import EpochSampler, check_at_least


class FFCVLoader:
    """Yields the same `PairBatch`es as a `FolderLoader` with the same seed, from records packed from its folders.

    Order, seed, ranks, epochs and the selection of views are those of `FolderLoader`, so a run can switch between the
    loaders and gets the same batches: bit-identical from raw records, up to the JPEG error from JPEG records. Several
    processes on one machine share the records in the system's page cache.

    Attributes:
        index: the records; `batch.index` contains positions in it, and `index.key(i)` is the key of image i.
        failures: error messages of the damaged images and views so far, by key.
        sampling: the images of each step of each epoch.
        missing_views: number of empty view slots of all images.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        batch_size: int,
        size: int | None = None,
        views_per_image: int = 1,
        interpolated: bool = True,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        batches_ahead: int = 2,
        os_cache: bool = True,
    ):
        """Open the records without decoding.

        Args:
            root: the folder of records.
            batch_size: images per batch on each rank.
            size: size of the squares, pixels; None for that of the records.
            views_per_image: view slots per image, K; 0 if the records have no views. If an image has more views,
                they alternate from epoch to epoch.
            interpolated: whether to read the interpolated views and their partners.
            seed: seed of the order.
            shuffle: whether to shuffle; otherwise images are in the order of their keys.
            drop_last: whether to drop the last, smaller step; otherwise it is split evenly among the ranks.
            workers: threads that decode; 0 decodes when a batch is requested.
            device: device of the batches.
            rank: rank of this process.
            world_size: number of processes that share each epoch.
            batches_ahead: number of batches that the threads prepare in advance.
            os_cache: whether the records fit into the system's page cache; if not, only the pages of the next
                batches are read.

        Raises:
            ValueError: the records are missing or damaged, FFCV is missing, or an option is out of range.
        """
        check_at_least(0, views_per_image=views_per_image)
        check_at_least(1, batches_ahead=batches_ahead)
        self.index = Records(root)
        layout = self.index.layout
        if size not in (None, layout.size):
            raise ValueError(f"expected records of {size} px, got {layout.size} px in {root}; pack them with that size")
        self.device = torch.device(device)
        self.failures: dict[str, str] = {}
        self.sampling = EpochSampler(
            length=len(self.index),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        slots = views_per_image if layout.views else 0
        self.missing_views = self.index.missing_views(slots)
        self._reader = RecordReader(
            self.index,
            views_per_image=slots,
            mixed=interpolated and layout.mixed > 0,
            pinned=self.device.type == "cuda",
            ahead=not os_cache,
        )
        self._workers, self._ahead = workers, batches_ahead
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None

    def __len__(self) -> int:
        """Return the number of steps per epoch of this rank."""
        return self.sampling.steps

    def __iter__(self) -> Iterator[PairBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """Yield the batches of an epoch from step `start` on, identical to those of an uninterrupted epoch.

        Raises:
            ValueError: there is no such step.
        """
        self.sampling.require(start)
        return self._read(epoch, start)

    def _read(self, epoch: int, start: int) -> Iterator[PairBatch]:
        for reading in self._decoded(epoch, start):
            batch, failures = self._reader.finish(reading)
            self.failures.update(failures)
            yield batch.to(self.device)

    def _decoded(self, epoch: int, start: int) -> Iterator[PendingBatch]:
        """Yield decoded batches in order, while the threads decode the next ones."""
        coming: deque[tuple[PendingBatch, list[Future]]] = deque()
        try:
            for step in range(start, len(self)):
                coming.append(self._begin(epoch, step))
                if len(coming) > (self._ahead if self._pool else 0):
                    yield _ended(*coming.popleft())
            while coming:
                yield _ended(*coming.popleft())
        finally:
            for _, pieces in coming:
                for piece in pieces:
                    piece.cancel()

    def _begin(self, epoch: int, step: int) -> tuple[PendingBatch, list[Future]]:
        reading = self._reader.begin(self.sampling.positions(epoch, step), epoch)
        if self._pool is None:
            self._reader.decode(reading, 0, 1)
            return reading, []
        pieces = range(self._workers)
        return reading, [self._pool.submit(self._reader.decode, reading, i, self._workers) for i in pieces]


def _ended(reading: PendingBatch, pieces: list[Future]) -> PendingBatch:
    for piece in pieces:
        piece.result()
    return reading
