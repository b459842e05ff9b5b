"""Training batches whose every draw depends on (seed, step, place in the batch) alone.

Shapes: B images of this process's part of a batch, R the resolution in pixels.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

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


class TrainingImages:
    """Decoded images by index: from memory for a small set, otherwise read again, some batches ahead.

    Args:
        root: their folder.
        keys: which of them.
        resolution: R.
        workers: threads that read.
        memory_bytes: the most a set may take to be kept.
    """

    def __init__(
        self, root: Path, keys: Sequence[str], resolution: int, *, workers: int = 4, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.root, self.keys, self.resolution, self.workers = root, keys, resolution, workers
        self._kept = None
        if len(keys) * 3 * resolution**2 <= memory_bytes:
            with ThreadPoolExecutor(workers) as pool:
                self._kept = torch.stack(list(pool.map(self._read, range(len(keys)))))

    def _read(self, index: int) -> UInt8[Tensor, "3 R R"]:
        return read_image(key_path(self.root, self.keys[index]), self.resolution)

    def batches(self, indices: Iterator[list[int]], ahead: int = 2) -> Iterator[UInt8[Tensor, "B 3 R R"]]:
        """The images of each list of indices, in order."""
        if self._kept is not None:
            yield from (self._kept[wanted] for wanted in indices)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[list[Future]] = deque()
            for wanted in indices:
                pending.append([pool.submit(self._read, index) for index in wanted])
                if len(pending) > ahead:
                    yield torch.stack([future.result() for future in pending.popleft()])
            while pending:
                yield torch.stack([future.result() for future in pending.popleft()])


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random part of a batch.

    Attributes:
        flip: which images are mirrored.
        keep: which images keep their condition.
        timestep: of the noise process.
        noise: standard normal.
    """

    flip: Bool[Tensor, " B"]
    keep: Bool[Tensor, " B"]
    timestep: Int[Tensor, " B"]
    noise: Float[Tensor, "B C H W"]


def draw(
    places: range,
    *,
    seed: int,
    step: int,
    batch_size: int,
    shape: tuple[int, int, int],
    timesteps: int,
    timestep_law: str,
    flip: bool,
    dropout: float,
) -> Draws:
    """The draws of these places of step ``step``'s batch; the same whichever process asks.

    The timesteps of a batch are evenly spread from a common random offset, which lowers the variance of the loss
    (https://arxiv.org/abs/2107.00630, appendix I). The logit-normal law is the logistic function of a standard normal
    (https://arxiv.org/abs/2403.03206, section 3.1).
    """
    offset = torch.rand((), generator=generator_for(seed, "timestep", step), dtype=torch.float64)
    spread = (offset + torch.tensor(list(places), dtype=torch.float64) / batch_size) % 1
    if timestep_law == "logit_normal":
        spread = torch.special.ndtri(spread).sigmoid()
    generators = [generator_for(seed, "sample", step, place) for place in places]
    uniform = torch.stack([torch.rand(2, generator=generator) for generator in generators])
    return Draws(
        flip=(uniform[:, 0] < 0.5) & flip,
        keep=uniform[:, 1] >= dropout,
        timestep=(spread * timesteps).long().clamp_max(timesteps - 1),
        noise=torch.stack([torch.randn(shape, generator=generator) for generator in generators]),
    )
