"""Training batches whose every draw depends on (seed, step, place in the batch) alone.

Shapes: B images of this process's part of a batch, R the resolution in pixels, C, h, w the channels and sides of noise.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from viewgen.eldm.config import TrainingConfig
from viewgen.images import key_path, read_image
from viewgen.seeding import generator_for

MEMORY_BYTES = 2 << 30  # a set that is smaller when decoded is kept in memory


class EpochOrder:
    """The images in the order of training: a new permutation for each pass over them."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, place: int) -> int:
        """The image at this place of the endless sequence of passes."""
        epoch, offset = divmod(place, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                torch.randperm(self.count, generator=generator_for(self.seed, "epoch", epoch)),
            )
        return int(self._order[offset])


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process's part of one step's batch.

    Attributes:
        step: the step.
        places: in the whole batch.
        rows: the image at each place.
    """

    step: int
    places: range
    rows: list[int]


def batch_parts(config: TrainingConfig, count: int, start: int, rank: int = 0, world: int = 1) -> Iterator[Part]:
    """The parts of process ``rank`` of ``world``, from step ``start`` on, of batches from ``count`` images."""
    order, share = EpochOrder(count, config.seed), config.batch_size // world
    places = range(rank * share, (rank + 1) * share)
    for step in range(start, config.steps):
        yield Part(step=step, places=places, rows=[order(step * config.batch_size + place) for place in places])


@runtime_checkable
class Source(Protocol):
    """Where the images of a training come from: their files, or what an autoencoder made of them."""

    def read(self, row: int, mirrored: bool) -> Tensor:
        """One image."""
        ...


class TrainingImages:
    """Decoded images by row: from memory for a small set, otherwise read again each time.

    Args:
        root: their folder.
        keys: which of them.
        resolution: R.
        workers: threads that read a set that is kept.
        memory_bytes: the most a set may take to be kept.
    """

    def __init__(
        self, root: Path, keys: Sequence[str], resolution: int, *, workers: int = 4, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.root, self.keys, self.resolution = root, keys, resolution
        self._kept = None
        if len(keys) * 3 * resolution**2 <= memory_bytes:
            with ThreadPoolExecutor(workers) as pool:
                self._kept = torch.stack(list(pool.map(self._decode, range(len(keys)))))

    def read(self, row: int, mirrored: bool) -> UInt8[Tensor, "3 R R"]:
        """One image."""
        image = self._decode(row) if self._kept is None else self._kept[row]
        return image.flip(2) if mirrored else image

    def _decode(self, row: int) -> UInt8[Tensor, "3 R R"]:
        return read_image(key_path(self.root, self.keys[row]), self.resolution)


def read_ahead(
    source: Source, wanted: Iterator[tuple[list[int], list[bool]]], *, workers: int = 4, ahead: int = 2
) -> Iterator[Tensor]:
    """The stacked images of each batch of (rows, which are mirrored), in order, read some batches ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[list[Future]] = deque()
        for rows, mirrored in wanted:
            pending.append([pool.submit(source.read, *pair) for pair in zip(rows, mirrored, strict=True)])
            if len(pending) > ahead:
                yield torch.stack([future.result() for future in pending.popleft()])
        while pending:
            yield torch.stack([future.result() for future in pending.popleft()])


def draw_images(
    part: Part, seed: int, shape: tuple[int, int, int]
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B C h w"]]:
    """Uniform numbers and standard normal noise for the places of a part, whichever process asks."""
    generators = [generator_for(seed, "sample", part.step, place) for place in part.places]
    uniform = torch.stack([torch.rand(2, generator=generator) for generator in generators])
    return uniform, torch.stack([torch.randn(shape, generator=generator) for generator in generators])
