"""Training batches whose random numbers depend only on (seed, step, index in the batch).

Shapes: B images of this process's slice of a batch, K their channels, R the resolution in pixels, C, h, w (or
H, W) the channels and sides of the noise.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from genviews_core.pixel_range import Range
from viewgen.eldm.config import ELDMConfig, TrainingConfig
from viewgen.keys import read_key
from viewgen.seeding import generator_for

MEMORY_BYTES = 2 << 30  # a set that is smaller when decoded is kept in memory


class EpochPermutation:
    """The order in which images are trained on: a new permutation every epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, position: int) -> int:
        """Return the row of the image at ``position`` in the sequence of all epochs."""
        epoch, offset = divmod(position, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                torch.randperm(self.count, generator=generator_for(self.seed, "epoch", epoch)),
            )
        return int(self._order[offset])


@dataclass(frozen=True, kw_only=True)
class RankSlice:
    """One process's slice of one batch.

    Attributes:
        step: training step.
        indices: positions in the whole batch.
        rows: row of the image at each position.
    """

    step: int
    indices: range
    rows: list[int]


def rank_slices(config: TrainingConfig, count: int, start: int, rank: int = 0, world: int = 1) -> Iterator[RankSlice]:
    """Yield the slices of process ``rank`` of ``world``, from step ``start`` on, of batches from ``count`` images."""
    order, size = EpochPermutation(count, config.seed), config.batch_size // world
    indices = range(rank * size, (rank + 1) * size)
    for step in range(start, config.steps):
        rows = [order(step * config.batch_size + index) for index in indices]
        yield RankSlice(step=step, indices=indices, rows=rows)


@runtime_checkable
class Source(Protocol):
    """Images by row: decoded files, or cached latents."""

    def read(self, row: int, mirrored: bool) -> Tensor:
        """Return one image."""
        ...


class TrainingImages:
    """Decoded images by row; a small set is kept in memory, a large one is decoded each time.

    Args:
        root: folder of the images.
        keys: keys of the images.
        resolution: R.
        workers: threads that read a small set into memory.
        memory_bytes: size up to which a set is kept in memory.
        channels: K.
        value_range: see ``read_key``.
    """

    def __init__(
        self,
        root: Path,
        keys: Sequence[str],
        resolution: int,
        *,
        workers: int = 4,
        memory_bytes: int = MEMORY_BYTES,
        channels: int = 3,
        value_range: Range | None = None,
    ) -> None:
        self.root, self.keys, self.resolution = root, keys, resolution
        self.channels, self.value_range = channels, value_range
        self._kept = None
        if len(keys) * channels * resolution**2 <= memory_bytes:
            with ThreadPoolExecutor(workers) as pool:
                self._kept = torch.stack(list(pool.map(self._decode, range(len(keys)))))

    def read(self, row: int, mirrored: bool) -> UInt8[Tensor, "K R R"]:
        """Return one image."""
        image = self._decode(row) if self._kept is None else self._kept[row]
        return image.flip(2) if mirrored else image

    def _decode(self, row: int) -> UInt8[Tensor, "K R R"]:
        return read_key(
            self.root, self.keys[row], self.resolution, channels=self.channels, value_range=self.value_range
        )


def read_ahead(
    source: Source, requests: Iterator[tuple[list[int], list[bool]]], *, workers: int = 4, ahead: int = 2
) -> Iterator[Tensor]:
    """Yield the stacked images of each batch of (rows, whether each is mirrored), reading some batches ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[list[Future]] = deque()
        for rows, mirrored in requests:
            pending.append([pool.submit(source.read, *pair) for pair in zip(rows, mirrored, strict=True)])
            if len(pending) > ahead:
                yield torch.stack([future.result() for future in pending.popleft()])
        while pending:
            yield torch.stack([future.result() for future in pending.popleft()])


def draw_uniform_and_normal(
    piece: RankSlice, seed: int, shape: tuple[int, int, int]
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B C h w"]]:
    """Return two uniform numbers and standard normal noise per image, independent of the number of processes."""
    generators = [generator_for(seed, "sample", piece.step, index) for index in piece.indices]
    uniform = torch.stack([torch.rand(2, generator=generator) for generator in generators])
    return uniform, torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@dataclass(frozen=True, kw_only=True)
class NoiseDraws:
    """The random numbers of a batch.

    Attributes:
        flip: whether each image is mirrored.
        keep: whether each image keeps its condition.
        timestep: timestep of the noise process.
        noise: standard normal noise.
    """

    flip: Bool[Tensor, " B"]
    keep: Bool[Tensor, " B"]
    timestep: Int[Tensor, " B"]
    noise: Float[Tensor, "B C H W"]


def draw_noise(piece: RankSlice, config: ELDMConfig, shape: tuple[int, int, int]) -> NoiseDraws:
    """Draw the random numbers of one process's slice of a batch, independent of the number of processes.

    The timesteps of a batch are evenly spread from a common random offset, which lowers the variance of the loss
    (https://arxiv.org/abs/2107.00630, appendix I). Logit-normal sampling applies the logistic function to a standard
    normal (https://arxiv.org/abs/2403.03206, section 3.1).

    Args:
        piece: step and indices.
        config: training configuration.
        shape: (C, H, W) of the noise.
    """
    offset = torch.rand((), generator=generator_for(config.seed, "timestep", piece.step), dtype=torch.float64)
    spread = (offset + torch.tensor(list(piece.indices), dtype=torch.float64) / config.batch_size) % 1
    if config.timestep_sampling == "logit_normal":
        spread = torch.special.ndtri(spread).sigmoid()
    uniform, noise = draw_uniform_and_normal(piece, config.seed, shape)
    return NoiseDraws(
        flip=(uniform[:, 0] < 0.5) & config.flip,
        keep=uniform[:, 1] >= config.condition_dropout,
        timestep=(spread * config.timesteps).long().clamp_max(config.timesteps - 1),
        noise=noise,
    )
