"""Which images each step trains on, and how they get to it.

The order, the short edges and the mirroring depend on the seed and the step alone, not on workers or processes.
"""

import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.examples import Example, read_example
from ssl_eval.coco.recipe import DetectionRecipe
from ssl_eval.softmax_regression import stream


@dataclass(frozen=True)
class Request:
    """One image, as it shall be read."""

    row: int
    short_edge: int
    flip: bool = False


def training_requests(
    instances: CocoInstances, recipe: DetectionRecipe, seed: int, *, start: int = 0, rank: int = 0, processes: int = 1
) -> Iterator[list[Request]]:
    """What this process reads for each step, from step `start` on, without end.

    Images that hold nothing to learn are left out. Every epoch is shuffled anew. Upright and broad images come in
    pairs of their kind, as where two images a GPU are grouped by their aspect
    (facebookresearch/detectron2@02b5c4e detectron2/data/common.py AspectRatioGroupedDataset).

    Raises:
        ValueError: there is nothing to learn, or the batch does not divide over the processes.
    """
    if recipe.batch_size % processes:
        raise ValueError(f"batch size {recipe.batch_size} does not divide over {processes} processes")
    rows = np.flatnonzero(instances.counts)
    if not len(rows):
        raise ValueError(f"{instances.annotations} holds nothing to learn: no object with an area that is no crowd")
    mine = slice(*(recipe.batch_size * place // processes for place in (rank, rank + 1)))
    for step, batch in enumerate(islice(_batches(instances, rows, recipe.batch_size, seed), start, None), start):
        draws = stream(seed, f"coco/{step}")
        edges = torch.randint(len(recipe.short_edges), (len(batch),), generator=draws).tolist()
        flips = (torch.rand(len(batch), generator=draws) < 0.5).tolist()
        drawn = zip(batch, edges, flips, strict=True)
        yield [Request(row, recipe.short_edges[edge], flip) for row, edge, flip in drawn][mine]


def _batches(instances: CocoInstances, rows: np.ndarray, size: int, seed: int) -> Iterator[list[int]]:
    group = math.gcd(2, size)
    broad = instances.sizes[:, 1] > instances.sizes[:, 0]
    waiting: dict[bool, list[int]] = {True: [], False: []}
    batch: list[int] = []
    for epoch in count():
        order = torch.randperm(len(rows), generator=stream(seed, f"coco/order/{epoch}")).numpy()
        for row in rows[order].tolist():
            alike = waiting[bool(broad[row])]
            alike.append(row)
            if len(alike) == group:
                batch += alike
                alike.clear()
            if len(batch) == size:
                yield batch
                batch = []


def read_all(
    instances: CocoInstances,
    requests: Iterable[list[Request]],
    recipe: DetectionRecipe,
    to_input: Callable[[Example], Any],
    workers: int = 0,
) -> Iterator[list[Any]]:
    """The inputs of a detector for each list of requests, in order.

    Args:
        instances: the data set.
        requests: see above.
        recipe: for the long edge.
        to_input: makes an input of an example, where it was read.
        workers: processes that read.

    Raises:
        ValueError: an image cannot be read.
    """
    loader = DataLoader(
        _Reader(instances, recipe.long_edge, to_input),
        batch_size=None,
        sampler=requests,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_as_read,
        worker_init_fn=_ignore_signals,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


class _Reader(Dataset):
    """A list of requests to inputs, or to the line that says what is broken."""

    def __init__(self, instances: CocoInstances, long_edge: int, to_input: Callable[[Example], Any]):
        self._instances, self._long_edge, self._to_input = instances, long_edge, to_input

    def __getitem__(self, requests: list[Request]) -> list[Any] | str:
        try:
            return [
                self._to_input(
                    read_example(self._instances, each.row, each.short_edge, self._long_edge, flip=each.flip)
                )
                for each in requests
            ]
        except ValueError as error:
            return str(error)


def _ignore_signals(worker: int) -> None:
    """A scheduler signals every process of a job; these live until the one that reads from them has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _as_read(item: object) -> object:
    return item
