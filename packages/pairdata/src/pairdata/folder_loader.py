"""Batches of pairs from plain folders: decoded in worker processes, in an order that any step can be entered at.

Legend: B images a batch, K views of each, S side of the squares.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from genviews_core.pixel_range import Range
from pairdata.augment import Interpolation
from pairdata.batch import PairBatch
from pairdata.index import ImageIndex, index_images
from pairdata.manifest import ViewsIndex
from pairdata.reading import AlignedViews, BatchReader, Request
from pairdata.sampling import Sampling


class FolderLoader:
    """Yields `PairBatch`es: each image of a folder once per epoch, with its synthetic views.

    Epoch e is one permutation, seeded by (seed, e). R ranks with B images a batch together read at every step what
    one rank with R B images a batch reads.

    Attributes:
        index: the images; `batch.index` counts in it.
        failures: the files that could not be read so far, and why.
        sampling: which images each step of each epoch reads.
        missing_views: how many of the N K places for views the manifest leaves empty.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        batch_size: int,
        size: int = 288,
        views: str | Path | None = None,
        interpolated: str | Path | None = None,
        views_per_image: int = 1,
        fit: Literal["squash", "center"] = "squash",
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        value_range: Range | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 0,
        limit: int | None = None,
    ):
        """Index the images and read the manifests; nothing is decoded yet.

        Args:
            root: the folder of images.
            batch_size: images a batch, on each rank.
            size: side of the squares, pixels.
            views: a folder of views with their manifest; its interpolated views are not used.
            interpolated: a folder of interpolated views with their manifest (may be the same folder); only its rows
                with an alpha are used.
            views_per_image: places for views; where an image has more views, they take turns from epoch to epoch.
            fit: "squash" for training (the whole image as a square; crops are drawn in the original's geometry);
                "center" for evaluation (short side to `resize`, then the centre).
            resize: the short side for "center", `size` when None.
            interpolation: how "center" resizes.
            value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.
            seed: of the order.
            shuffle: whether to permute; otherwise the images come in the order of their keys.
            drop_last: whether to leave out the last, smaller step; otherwise it is split evenly among the ranks.
            workers: processes that decode; 0 decodes in this one.
            device: where batches go.
            rank: this process among world_size.
            world_size: processes that share each epoch.
            cache_bytes: memory for decoded squares, shared by the workers of this process.
            limit: use so many images, evenly spaced over the sorted keys.

        Raises:
            ValueError: see the message: no images, no manifest, views of other images, an impossible number.
        """
        _check(batch_size=batch_size, size=size, views_per_image=views_per_image, world_size=world_size)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of 0 to {world_size - 1}")
        if fit not in ("squash", "center"):
            raise ValueError(f'fit is "squash" or "center", not {fit!r}')
        if resize is not None and (fit != "center" or resize < size):
            raise ValueError(f'resize={resize} needs fit="center" and must be at least size={size}')
        self.index = _limited(index_images(root), limit)
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
        aligned = AlignedViews(ViewsIndex(views), self.index) if views is not None else None
        mixed = None
        if interpolated is not None:
            mixed = AlignedViews(ViewsIndex(interpolated, interpolated=True), self.index)
        self.missing_views = int(np.maximum(views_per_image - aligned.counts, 0).sum()) if aligned else 0
        reader = BatchReader(
            self.index,
            size=size,
            fit=fit,
            resize=resize,
            views=aligned,
            views_per_image=views_per_image,
            interpolated=mixed,
            cache_bytes=cache_bytes,
            interpolation=interpolation,
            value_range=value_range,
        )
        self._requests = _Requests(self.sampling)
        self._batches = _data_loader(reader, self._requests, workers, self.device)

    def __len__(self) -> int:
        """Steps per epoch of this rank."""
        return self.sampling.steps

    def __iter__(self) -> Iterator[PairBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """The batches of an epoch from step `start` on, exactly those an uninterrupted epoch has there.

        One epoch runs at a time; to begin another ends the one before.

        Raises:
            ValueError: no such step.
        """
        self.sampling.require(start)
        return self._read(epoch, start)

    def _read(self, epoch: int, start: int) -> Iterator[PairBatch]:
        self._requests.epoch, self._requests.start = epoch, start
        for batch, failures in self._batches:
            self.failures.update(failures)
            yield batch.to(self.device)


class _Requests:
    """What to read in the epoch that is set, in order.

    It does not know the loader: worker processes end at once only where no circle of references holds them.
    """

    def __init__(self, sampling: Sampling):
        self._sampling, self.epoch, self.start = sampling, 0, 0

    def __len__(self) -> int:
        return self._sampling.steps - self.start

    def __iter__(self) -> Iterator[Request]:
        epoch = self.epoch
        for step in range(self.start, self._sampling.steps):
            yield Request(self._sampling.positions(epoch, step), epoch)


def _data_loader(reader: BatchReader, requests: _Requests, workers: int, device: torch.device) -> DataLoader:
    # Forked, workers share the index and the cache; Linux alone forks safely.
    context = "fork" if workers and sys.platform == "linux" else None
    return DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_as_read,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        generator=torch.Generator(),  # the loader would draw from the global one
    )


def _as_read(item: object) -> object:
    return item


def _limited(index: ImageIndex, limit: int | None) -> ImageIndex:
    if limit is None or limit >= len(index):
        return index
    _check(limit=limit)
    return index.take(np.arange(limit) * len(index) // limit)


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value}: it must be at least 1")
