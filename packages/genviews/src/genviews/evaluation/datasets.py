"""Labeled images of a folder with one subfolder per class: augmented for training, center-cropped for testing.

Shapes: B images per batch, C channels, `size` height and width of the network's inputs in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

from genviews_core.pixel_range import Range
from pairdata import Augment, AugmentDraws, ImageIndex
from pairdata.augment import Interpolation
from pairdata.decode import UnreadableImage, decode_square
from pairdata.sampling import EpochSampler
from ssl_eval import TransformConfig
from ssl_eval.item_loader import OnUnreadable, load_items, raise_error
from sslzoo import DistContext

Batch = tuple[Float[Tensor, "B C size size"], Int64[Tensor, " B"], Int64[Tensor, " B"]]


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Normalization and decoding of images.

    Attributes:
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel, likewise.
        workers: processes that decode; 0 decodes in the main process.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None uses the range of each image.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    workers: int = 0
    value_range: Range | None = None


class TrainingImages:
    """Random crops and flips of shuffled images, drawn from the seed, the epoch and the step.

    Each image is decoded to a square of twice the input size (below 64 px: of the input size), and cropped from it in
    the geometry of the original.
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
            raise ValueError(
                f"expected a batch size divisible by the {context.world_size} processes, got {batch_size}; "
                "change --batch-size"
            )
        self._augment = Augment(
            size=preparation.size, crop_scale=preparation.crop_scale, flip=preparation.flip, jitter=None, gray_p=0.0,
            blur_p=0.0, mean=reading.mean, std=reading.std,
        )  # fmt: skip
        self._sampling = EpochSampler(
            length=len(index),
            batch_size=batch_size // context.world_size,
            seed=seed,
            shuffle=True,
            # All processes take equally many steps: a last step without an image for each of them is dropped.
            drop_last=len(index) % batch_size < context.world_size,
            rank=context.rank,
            world_size=context.world_size,
        )
        self._seed, self._context, self._batch_size = seed, context, batch_size
        side = preparation.size * (2 if preparation.size >= 64 else 1)
        self._decoder, self._workers = (
            _Decoder(index, ResizeSquare(side, reading.value_range, len(reading.mean))),
            reading.workers,
        )

    def __len__(self) -> int:
        return self._sampling.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch: images, labels, indices."""
        requests = [self._sampling.positions(epoch, step) for step in range(len(self))]
        for step, (pixels, labels, index, sizes) in enumerate(_read(self._decoder, requests, self._workers)):
            draws = self._draw(epoch, step, sizes)
            yield self._augment.apply(pixels.to(self._context.device), draws), labels, index

    def _draw(self, epoch: int, step: int, sizes: Int64[Tensor, "B 2"]) -> AugmentDraws:
        """Draw for the images of all processes, so that crops do not depend on the number of processes."""
        digest = blake2b(f"evaluation/{self._seed}/{epoch}/{step}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        together = min(self._batch_size, len(self._decoder.index) - step * self._batch_size)
        first = together * self._context.rank // self._context.world_size
        mine = slice(first, first + len(sizes))
        all_sizes = torch.ones(together, 2, dtype=torch.long)  # the amount of random numbers does not depend on sizes
        all_sizes[mine] = sizes
        return self._augment.draw(all_sizes, generator)[mine]


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
        pixels = reading.value_range, len(reading.mean)
        centre = CenterCrop(preparation.size, preparation.resize, preparation.interpolation, *pixels)
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
    """Resize the whole image to a square of `side` pixels."""

    side: int
    value_range: Range | None = None
    channels: int = 3

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels, and (height, width) of the original."""
        return decode_square(path, self.side, value_range=self.value_range, channels=self.channels)


@dataclass(frozen=True)
class CenterCrop:
    """Resize the short side to `resize` pixels and crop `side` x `side` pixels, as torchvision does with PIL images."""

    side: int
    resize: int
    interpolation: Interpolation
    value_range: Range | None = field(default=None, repr=False)  # not part of the key of cached slide embeddings
    channels: int = field(default=3, repr=False)

    def __call__(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels, and (height, width) of the original."""
        return decode_square(
            path,
            self.side,
            fit="center",
            resize=self.resize,
            interpolation=self.interpolation,
            value_range=self.value_range,
            channels=self.channels,
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
    """Yield the decoded batch of each request, in order.

    Raises:
        ValueError: a file cannot be read and `on_unreadable` raises.
    """
    for batch, lines in load_items(decoder, requests, workers):
        for line in lines:
            on_unreadable(line)
        if batch is not None:
            yield batch
