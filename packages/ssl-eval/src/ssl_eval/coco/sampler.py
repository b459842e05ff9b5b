"""Training batches for detection: which images each step uses, how they are resized and flipped, and how they are read.

The order, the short edges and the flips depend only on the seed and the step, not on workers or processes.

Shapes: m instances, h x w pixels.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from genviews_core.images import UnreadableImage, read_rgb
from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.config import DetectionConfig
from ssl_eval.coco.masks import Segmentation, move
from ssl_eval.item_loader import load_items
from ssl_eval.rng import seeded_generator


@dataclass(frozen=True, eq=False)
class Example:
    """A training or test image.

    Attributes:
        image: its pixels in RGB.
        boxes: left, top, right, bottom, in pixels of `image`.
        labels: classes, counted from 0.
        segmentations: one per object, in pixels of `image`.
        original: height and width of the file.
        row: position in the data set.
    """

    image: UInt8[Tensor, "3 h w"]
    boxes: Float[Tensor, "m 4"]
    labels: Int[Tensor, " m"]
    segmentations: tuple[Segmentation, ...]
    original: tuple[int, int]
    row: int

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        return self.image.shape[1], self.image.shape[2]


def read_example(instances: CocoInstances, row: int, short_edge: int, long_edge: int, *, flip: bool = False) -> Example:
    """Decode, resize with PIL's antialiased bilinear filter and mirror, as detectron2 does.

    Raises:
        ValueError: the image cannot be read, or its size differs from the annotation.
    """
    objects = instances.objects(row)
    height, width = (int(pixels) for pixels in instances.sizes[row])
    image = _decode(instances, row, objects.file_name)
    tall, wide = resized(height, width, short_edge, long_edge)
    pixels = np.asarray(image.resize((wide, tall), Image.Resampling.BILINEAR))
    boxes = objects.boxes * np.array([wide / width, tall / height] * 2, dtype=np.float32)
    if flip:
        pixels = pixels[:, ::-1]
        boxes = np.stack([wide - boxes[:, 2], boxes[:, 1], wide - boxes[:, 0], boxes[:, 3]], axis=1)
    moved = (move(each, (tall, wide), flip, (height, width)) for each in objects.segmentations)
    return Example(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(objects.labels),
        segmentations=tuple(moved),
        original=(height, width),
        row=row,
    )


def resized(height: int, width: int, short_edge: int, long_edge: int) -> tuple[int, int]:
    """Return height and width with the given short edge, or less if the long edge would be too long.

    facebookresearch/detectron2@02b5c4e detectron2/data/transforms/augmentation_impl.py ResizeShortestEdge.
    """
    scale = short_edge / min(height, width)
    scale = min(scale, long_edge / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _decode(instances: CocoInstances, row: int, file_name: str) -> Image.Image:
    path = instances.images / file_name
    height, width = (int(pixels) for pixels in instances.sizes[row])
    try:
        image = read_rgb(path)
    except UnreadableImage as error:
        raise ValueError(f"cannot decode {path}, image {instances.ids[row]} ({error.reason})") from None
    if image.size != (width, height):
        stated = f"{width} x {height} pixels as in {instances.annotations}"
        got = f"{image.width} x {image.height}"
        raise ValueError(f"{path}, image {instances.ids[row]}: expected {stated}, got {got}")
    return image


@dataclass(frozen=True)
class SampleRequest:
    """An image to read, with its size and flip."""

    row: int
    short_edge: int
    flip: bool = False


def training_batches(
    instances: CocoInstances, recipe: DetectionConfig, seed: int, *, start: int = 0, rank: int = 0, processes: int = 1
) -> Iterator[list[SampleRequest]]:
    """Yield the requests of this process for each step, from step `start` on, without end.

    Images without targets are skipped. Every epoch has another order. Portrait and landscape images are grouped in
    pairs, as with aspect ratio grouping and two images per GPU
    (facebookresearch/detectron2@02b5c4e detectron2/data/common.py AspectRatioGroupedDataset).

    Raises:
        ValueError: there are no targets, or the batch size is not a multiple of the number of processes.
    """
    if recipe.batch_size % processes:
        raise ValueError(
            f"expected a batch size that is a multiple of the {processes} processes, got {recipe.batch_size}"
        )
    rows = np.flatnonzero(instances.counts)
    if not len(rows):
        raise ValueError(f"expected objects with an area that are not crowds in {instances.annotations}, got none")
    mine = slice(*(recipe.batch_size * place // processes for place in (rank, rank + 1)))
    for step, batch in enumerate(islice(_batches(instances, rows, recipe.batch_size, seed), start, None), start):
        draws = seeded_generator(seed, f"coco/{step}")
        edges = torch.randint(len(recipe.short_edges), (len(batch),), generator=draws).tolist()
        flips = (torch.rand(len(batch), generator=draws) < 0.5).tolist()
        drawn = zip(batch, edges, flips, strict=True)
        yield [SampleRequest(row, recipe.short_edges[edge], flip) for row, edge, flip in drawn][mine]


def _batches(instances: CocoInstances, rows: np.ndarray, size: int, seed: int) -> Iterator[list[int]]:
    group = math.gcd(2, size)
    broad = instances.sizes[:, 1] > instances.sizes[:, 0]
    waiting: dict[bool, list[int]] = {True: [], False: []}
    batch: list[int] = []
    for epoch in count():
        order = torch.randperm(len(rows), generator=seeded_generator(seed, f"coco/order/{epoch}")).numpy()
        for row in rows[order].tolist():
            alike = waiting[bool(broad[row])]
            alike.append(row)
            if len(alike) == group:
                batch += alike
                alike.clear()
            if len(batch) == size:
                yield batch
                batch = []


def read_batches(
    instances: CocoInstances,
    requests: Iterable[list[SampleRequest]],
    recipe: DetectionConfig,
    to_input: Callable[[Example], Any],
    workers: int = 0,
) -> Iterator[list[Any]]:
    """Yield the inputs of a detector for each list of requests, in order.

    Args:
        instances: the data set.
        requests: see `training_batches`.
        recipe: maximum long edge.
        to_input: converts an example to an input, in the worker process.
        workers: worker processes that read.

    Raises:
        ValueError: an image cannot be read.
    """
    return load_items(_Reader(instances, recipe.long_edge, to_input), requests, workers)


@dataclass(frozen=True, eq=False)
class _Reader(Dataset):
    """Maps a list of requests to inputs."""

    instances: CocoInstances
    long_edge: int
    to_input: Callable[[Example], Any]

    def __getitem__(self, requests: list[SampleRequest]) -> list[Any]:
        return [
            self.to_input(read_example(self.instances, each.row, each.short_edge, self.long_edge, flip=each.flip))
            for each in requests
        ]
