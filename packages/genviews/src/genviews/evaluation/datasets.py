"""Labelled images of a folder with one folder a class: augmented for training, centred for a test.

Shapes: B batch, S side of the squares that are kept, `size` side of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genviews_core.pixel_range import Range
from genviews_core.reader_processes import start_method
from pairdata import Augment, AugmentDraws, ImageIndex
from pairdata.augment import Interpolation
from pairdata.decode import UnreadableImage, decode_square
from pairdata.sampling import EpochSampler
from ssl_eval import TransformConfig
from ssl_eval.image_files import OnUnreadable, raise_error
from sslzoo import DistContext

Batch = tuple[Float[Tensor, "B 3 size size"], Int64[Tensor, " B"], Int64[Tensor, " B"]]


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How images are read: mean and std of values in [0, 1], workers are decoding processes.

    `value_range` is mapped to 0 and 255 in images of more than 8 bits; None uses the range of each image.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    workers: int = 0
    value_range: Range | None = None


class TrainingImages:
    """Random crops and flips; each epoch another order and other crops, drawn from the seed, the epoch and the step.

    The whole image is kept as a square of twice the input's side, or of its side below 64 px, and cropped there in the
    original's geometry.
    """

    def __init__(
        self,
        index: ImageIndex,
        preparation: TransformConfig,
        reading: LoaderConfig,
        *,
        batch_size: int,
        seed: int,
        context: DistContext,
    ):
        if batch_size % context.world_size:
            raise ValueError(f"batch size {batch_size} does not divide over {context.world_size} processes")
        self._augment = Augment(
            size=preparation.size, crop_scale=preparation.crop_scale, flip=preparation.flip, jitter=None, gray_p=0.0,
            blur_p=0.0, mean=reading.mean, std=reading.std,
        )  # fmt: skip
        self._sampling = EpochSampler(
            length=len(index),
            batch_size=batch_size // context.world_size,
            seed=seed,
            shuffle=True,
            # All processes make as many steps: a last one that some would have no image for is left out.
            drop_last=len(index) % batch_size < context.world_size,
            rank=context.rank,
            world_size=context.world_size,
        )
        self._seed, self._worker, self._batch_size = seed, context, batch_size
        side = preparation.size * (2 if preparation.size >= 64 else 1)
        self._decoder, self._workers = _Decoder(index, ResizeSquare(side, reading.value_range)), reading.workers

    def __len__(self) -> int:
        return self._sampling.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        requests = [self._sampling.positions(epoch, step) for step in range(len(self))]
        for step, (pixels, labels, index, sizes) in enumerate(_read(self._decoder, requests, self._workers)):
            draws = self._draw(epoch, step, sizes)
            yield self._augment.apply(pixels.to(self._worker.device), draws), labels, index

    def _draw(self, epoch: int, step: int, sizes: Int64[Tensor, "B 2"]) -> AugmentDraws:
        """Drawn for the images of all processes, so that an image's crop does not depend on how many there are."""
        digest = blake2b(f"evaluation/{self._seed}/{epoch}/{step}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        together = min(self._batch_size, len(self._decoder.index) - step * self._batch_size)
        first = together * self._worker.rank // self._worker.world_size
        mine = slice(first, first + len(sizes))
        everyone = torch.ones(together, 2, dtype=torch.long)  # how many numbers are drawn does not depend on sizes
        everyone[mine] = sizes
        return self._augment.draw(everyone, generator)[mine]


class CenterCropDataset:
    """Images with the short side resized and the center cropped; each image on one process.

    An unreadable image is skipped if `on_unreadable` returns.
    """

    def __init__(
        self,
        index: ImageIndex,
        preparation: TransformConfig,
        reading: LoaderConfig,
        *,
        batch_size: int,
        context: DistContext,
        on_unreadable: OnUnreadable = raise_error,
    ):
        centre = CenterCrop(preparation.size, preparation.resize, preparation.interpolation, reading.value_range)
        mine = np.arange(context.rank, len(index), context.world_size)
        self._requests = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        self._decoder, self._reading, self._device = _Decoder(index, centre), reading, context.device
        self._on_unreadable = on_unreadable

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Batch]:
        for pixels, labels, index, _ in _read(
            self._decoder, self._requests, self._reading.workers, self._on_unreadable
        ):
            values = pixels.to(self._device).float().div_(255)
            mean, std = (values.new_tensor(each)[:, None, None] for each in (self._reading.mean, self._reading.std))
            yield values.sub_(mean).div_(std), labels, index


@dataclass(frozen=True)
class ResizeSquare:
    """The whole image as a square."""

    side: int
    value_range: Range | None = None

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels, and (height, width) of the original."""
        return decode_square(path, self.side, value_range=self.value_range)


@dataclass(frozen=True)
class CenterCrop:
    """torchvision's Resize and CenterCrop, of a PIL image."""

    side: int
    resize: int
    interpolation: Interpolation
    value_range: Range | None = field(default=None, repr=False)  # not part of the key of cached slide embeddings

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels, and (height, width) of the original."""
        return decode_square(
            path,
            self.side,
            fit="center",
            resize=self.resize,
            interpolation=self.interpolation,
            value_range=self.value_range,
        )


class _Decoder(Dataset):
    """Maps indices to (pixels, labels, indices, original sizes) and the error messages of unreadable files."""

    def __init__(self, index: ImageIndex, decode: ResizeSquare | CenterCrop):
        self.index, self.decode = index, decode

    def __getitem__(self, positions: np.ndarray) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor] | None, list[str]]:
        decoded, read, lines = [], [], []
        for position in positions:
            try:
                decoded.append(self.decode(str(self.index.path(int(position)))))
                read.append(int(position))
            except UnreadableImage as error:
                lines.append(str(error))
        if not read:
            return None, lines
        pixels = torch.from_numpy(np.stack([square for square, _ in decoded])).permute(0, 3, 1, 2)
        labels, places = torch.from_numpy(self.index.labels[read]), torch.tensor(read)
        return (pixels, labels, places, torch.tensor([size for _, size in decoded])), lines


def _read(
    decoder: _Decoder, requests: list[np.ndarray], workers: int, on_unreadable: OnUnreadable = raise_error
) -> Iterator[tuple[Tensor, ...]]:
    """What the decoder makes of each request, in order.

    Raises:
        ValueError: a file cannot be read and may not be left out.
    """
    batches = DataLoader(
        decoder,
        batch_size=None,
        sampler=requests,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_as_read,
        multiprocessing_context=start_method(workers),
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    for batch, lines in batches:
        for line in lines:
            on_unreadable(line)
        if batch is not None:
            yield batch


def _as_read(item: object) -> object:
    return item
