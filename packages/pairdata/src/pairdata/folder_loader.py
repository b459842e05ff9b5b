"""Batches of pairs from plain folders: decoded in worker processes, in an order that any step can be entered at.

Legend: B images per batch, K views of each, S size of the squares.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from genviews_core.channels import ranges_of
from genviews_core.multiband import check_channels
from genviews_core.pixel_range import Range
from genviews_core.reader_processes import start_method
from pairdata.augment import Interpolation
from pairdata.batch import PairBatch
from pairdata.batch_reader import AlignedViews, BatchReader, BatchRequest
from pairdata.index import ImageIndex, index_images
from pairdata.manifest import ViewsIndex
from pairdata.sampling import EpochSampler, check_at_least


class FolderLoader:
    """Yields `PairBatch`es: each image of a folder once per epoch, with its synthetic views.

    Epoch e is a permutation seeded by (seed, e). At every step, R ranks with batch size B read the same images as one
    rank with batch size R B.

    Attributes:
        index: the images; `batch.index` contains positions in it.
        failures: error messages of the unreadable files so far, by path.
        sampling: the images of each step of each epoch.
        missing_views: number of empty view slots of all images.
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
        fit: Literal["resize", "center"] = "resize",
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        value_range: Range | None = None,
        channels: int = 3,
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
        """Index the images and read the manifests without decoding.

        Args:
            root: the folder of images.
            batch_size: images per batch on each rank.
            size: height and width of the squares, pixels.
            views: a folder of views with their manifest; its interpolated views are not used.
            interpolated: a folder of interpolated views with their manifest (may be the same folder); only its rows
                with an alpha are used.
            views_per_image: view slots per image; if an image has more views, they alternate from epoch to epoch.
            fit: "resize" for training (the whole image as a square; crops are drawn in the original's geometry);
                "center" for evaluation (short side to `resize`, then the center).
            resize: the short side for "center", `size` when None.
            interpolation: interpolation of "center".
            value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range. For
                other than three channels also low and high of each.
            channels: C of images and views: three for RGB, one for gray, or that of multi-band TIFFs.
            seed: seed of the order.
            shuffle: whether to shuffle; otherwise images are in the order of their keys.
            drop_last: whether to drop the last, smaller step; otherwise it is split evenly among the ranks.
            workers: worker processes that decode; 0 decodes in this process.
            device: device of the batches.
            rank: rank of this process.
            world_size: number of processes that share each epoch.
            cache_bytes: size of the cache of decoded squares, shared by the workers of this process.
            limit: number of images to use, evenly spaced over the sorted keys.

        Raises:
            ValueError: there are no images, no manifest or only views of other images, or an option is out of range.
        """
        check_at_least(1, size=size, views_per_image=views_per_image)
        check_channels(channels)
        ranges_of(value_range, channels)
        if fit not in ("resize", "center"):
            raise ValueError(f'expected fit "resize" or "center", got {fit!r}')
        if resize is not None and (fit != "center" or resize < size):
            raise ValueError(f'expected resize of at least size={size}, with fit="center", got {resize} and {fit!r}')
        self.index = _limited(index_images(root), limit)
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
            channels=channels,
        )
        self._requests = _Requests(self.sampling)
        self._batches = _data_loader(reader, self._requests, workers, self.device)

    def __len__(self) -> int:
        """Return the number of steps per epoch of this rank."""
        return self.sampling.steps

    def __iter__(self) -> Iterator[PairBatch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[PairBatch]:
        """Yield the batches of an epoch from step `start` on, identical to those of an uninterrupted epoch.

        Only one epoch is active at a time; starting another one ends it.

        Raises:
            ValueError: there is no such step.
        """
        self.sampling.require(start)
        return self._read(epoch, start)

    def _read(self, epoch: int, start: int) -> Iterator[PairBatch]:
        self._requests.epoch, self._requests.start = epoch, start
        for batch, failures in self._batches:
            self.failures.update(failures)
            yield batch.to(self.device)


class _Requests:
    """Requests of the current epoch, in order.

    It has no reference to the loader: worker processes end immediately only without reference cycles.
    """

    def __init__(self, sampling: EpochSampler):
        self._sampling, self.epoch, self.start = sampling, 0, 0

    def __len__(self) -> int:
        return self._sampling.steps - self.start

    def __iter__(self) -> Iterator[BatchRequest]:
        epoch = self.epoch
        for step in range(self.start, self._sampling.steps):
            yield BatchRequest(self._sampling.positions(epoch, step), epoch)


def _data_loader(reader: BatchReader, requests: _Requests, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        reader,  # type: ignore[arg-type]
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_as_read,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context=start_method(workers),
        generator=torch.Generator(),  # the loader would draw from the global one
    )


def _as_read(item: object) -> object:
    return item


def _limited(index: ImageIndex, limit: int | None) -> ImageIndex:
    if limit is None or limit >= len(index):
        return index
    check_at_least(1, limit=limit)
    return index.take(np.arange(limit) * len(index) // limit)
