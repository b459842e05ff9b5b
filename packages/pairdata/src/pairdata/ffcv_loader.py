"""Batches of pairs from records, decoded by threads of this process, in the same order as from plain folders.

Legend: B images a batch, K views of each, S side of the squares.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from pairdata.batch import PairBatch
from pairdata.record_reader import Reading, RecordReader
from pairdata.records import Records
from pairdata.sampling import Sampling


class FFCVLoader:
    """Yields the `PairBatch`es that a `FolderLoader` of the same seed yields, from records packed from its folders.

    The order, its seed, ranks, epochs and the turns of many views are those of `FolderLoader`; so a run may change
    from one loader to the other and see the same batches: bit for bit from raw records, up to JPEG's error from
    JPEG records. Several processes on one machine share the records' pages in the system's cache.

    Attributes:
        index: the records; `batch.index` counts in it, and `index.key(i)` names image i.
        failures: the images and views that turned out to be damaged so far, by key, and why.
        sampling: which images each step of each epoch reads.
        missing_views: how many of the N K places for views are empty.
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
        """Open the records; nothing is decoded yet.

        Args:
            root: the folder of records.
            batch_size: images a batch, on each rank.
            size: S; None takes that of the records.
            views_per_image: places for views, K, in a batch; 0 where the records hold no views. Where an image has
                more views, they take turns from epoch to epoch.
            interpolated: whether to read the interpolated views and their partners that the records hold.
            seed: of the order.
            shuffle: whether to permute; otherwise the images come in the order of their keys.
            drop_last: whether to leave out the last, smaller step; otherwise it is split evenly among the ranks.
            workers: threads that decode; 0 decodes when a batch is asked for.
            device: where batches go.
            rank: this process among world_size.
            world_size: processes that share each epoch.
            batches_ahead: batches that the threads work on beside the one in use.
            os_cache: whether the records fit the system's cache; if not, the system is told to read no more than
                what the coming batches need.

        Raises:
            ValueError: see the message: no records, damaged ones, no FFCV for JPEG records, an impossible number.
        """
        for name, value, lowest in (
            ("batch_size", batch_size, 1),
            ("views_per_image", views_per_image, 0),
            ("world_size", world_size, 1),
            ("batches_ahead", batches_ahead, 1),
        ):
            if value < lowest:
                raise ValueError(f"{name}={value}: it must be at least {lowest}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of 0 to {world_size - 1}")
        self.index = Records(root)
        layout = self.index.layout
        if size not in (None, layout.size):
            raise ValueError(
                f"the records in {root} have squares of {layout.size} px, not {size}: pack them with {size}"
            )
        self.device = torch.device(device)
        self.failures: dict[str, str] = {}
        self.sampling = Sampling(
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
        """Steps per epoch of this rank."""
        return self.sampling.steps

    def __iter__(self) -> Iterator[PairBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """The batches of an epoch from step `start` on, exactly those an uninterrupted epoch has there.

        Raises:
            ValueError: no such step.
        """
        self.sampling.require(start)
        return self._read(epoch, start)

    def _read(self, epoch: int, start: int) -> Iterator[PairBatch]:
        for reading in self._decoded(epoch, start):
            batch, failures = self._reader.finish(reading)
            self.failures.update(failures)
            yield batch.to(self.device)

    def _decoded(self, epoch: int, start: int) -> Iterator[Reading]:
        """Batches in their order, decoded; the threads are kept busy with those that follow."""
        coming: deque[tuple[Reading, list[Future]]] = deque()
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

    def _begin(self, epoch: int, step: int) -> tuple[Reading, list[Future]]:
        reading = self._reader.begin(self.sampling.positions(epoch, step), epoch)
        if self._pool is None:
            self._reader.decode(reading, 0, 1)
            return reading, []
        pieces = range(self._workers)
        return reading, [self._pool.submit(self._reader.decode, reading, i, self._workers) for i in pieces]


def _ended(reading: Reading, pieces: list[Future]) -> Reading:
    for piece in pieces:
        piece.result()
    return reading
