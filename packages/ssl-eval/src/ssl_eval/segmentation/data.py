"""Images with masks: training crops in batches, and whole test images one by one.

Training images are scaled, cropped, flipped and color-distorted as in mmsegmentation
(open-mmlab/mmsegmentation@0066ce8 mmseg/datasets/pipelines/transforms.py), but with PIL's antialiased resizing and
without a limit of the longer edge, which matters if it is four times the shorter one.

Shapes: b images, s x s pixels of a crop, h x w pixels.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ssl_eval.item_loader import OnUnreadable, load_items, raise_error
from ssl_eval.segmentation.mean_iou import IGNORE_INDEX
from ssl_eval.segmentation.training import SegmentationProtocol
from ssl_eval.segmentation.voc import SegmentationDataset

Batch = tuple[Float[Tensor, "b 3 s s"], UInt8[Tensor, "b s s"]]


Normalization = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of the channels, of values in [0, 1]."""

TRIES = 10
"""Maximum number of crops that are drawn until no class has too large a fraction."""


@dataclass(frozen=True, eq=False)
class TrainingCrops(Dataset):
    """Training batches by step; random draws depend only on the seed and the position in the training.

    Attributes:
        images: labeled images.
        protocol: sizes of crops and batches.
        normalization: mean and std.
        seed: seed of all random draws.
        rank: rank of this process.
        world_size: number of processes that share each batch.
        workers: worker processes that read images.

    Raises:
        ValueError: the batch size is not a multiple of the number of processes.
    """

    images: SegmentationDataset
    protocol: SegmentationProtocol
    normalization: Normalization
    _: KW_ONLY
    seed: int
    rank: int = 0
    world_size: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        if (size := self.protocol.batch_size) % self.world_size:
            raise ValueError(f"expected a batch size that is a multiple of the {self.world_size} processes, got {size}")

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of the steps from `first` up to `last`.

        Raises:
            ValueError: see SegmentationDataset.read.
        """
        yield from load_items(self, range(first, last), self.workers)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        size = self.protocol.batch_size
        first, last = (step * size + rank * size // self.world_size for rank in (self.rank, self.rank + 1))
        crops = [self._crop(position) for position in range(first, last)]
        return torch.stack([image for image, _ in crops]), torch.stack([mask for _, mask in crops])

    def _crop(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, index = divmod(position, len(self.images))
        row = int(_generator(self.seed, "order", epoch).permutation(len(self.images))[index])
        image, mask = self.images.read(row)
        return training_crop(image, mask, self.protocol, self.normalization, _generator(self.seed, "crop", position))


@dataclass(frozen=True, eq=False)
class TestImages(Dataset):
    """Whole test images at the protocol's size, with masks of the original size; each on one process.

    Attributes:
        images: labeled images.
        protocol: size of the images.
        normalization: mean and std.
        rank: rank of this process.
        world_size: processes that share the images.
        workers: worker processes that read images.
        on_unreadable: called with an error message for each unreadable image or mask, which is then skipped; raises by
            default.
    """

    __test__ = False

    images: SegmentationDataset
    protocol: SegmentationProtocol
    normalization: Normalization
    _: KW_ONLY
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    on_unreadable: OnUnreadable = raise_error

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "3 h w"], UInt8[Tensor, "H W"]]]:
        rows = range(self.rank, len(self.images), self.world_size)
        yield from load_items(self, rows, self.workers, self.on_unreadable)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image, mask = self.images.read(row)
        pixels = np.asarray(image.resize(scaled(image.size, self.protocol.short), Image.Resampling.BILINEAR))
        return normalize_image(pixels, self.normalization), torch.from_numpy(mask)


def _generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"segmentation/{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


BRIGHTNESS, FACTOR, HUE = 32.0, (0.5, 1.5), 18 / 180
"""Largest shift of the values; smallest and largest factor of contrast and saturation; largest turn of the hue."""


def training_crop(
    image: Image.Image,
    mask: np.ndarray,
    protocol: SegmentationProtocol,
    normalization: Normalization,
    draw: np.random.Generator,
) -> tuple[Float[Tensor, "3 s s"], UInt8[Tensor, "s s"]]:
    """Scale, crop, flip and color-distort an image; padding has mean values, and 255 in the mask."""
    size = scaled(image.size, round(protocol.short * draw.uniform(*protocol.scales)))
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    classes = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    for _ in range(TRIES + 1):
        top, left = (int(draw.integers(max(side - protocol.crop, 0) + 1)) for side in classes.shape)
        part = np.s_[top : top + protocol.crop, left : left + protocol.crop]
        if protocol.max_share >= 1 or _is_varied(classes[part], protocol.max_share):
            break
    pixels, classes = pixels[part], classes[part]
    if draw.random() < 0.5:
        pixels, classes = pixels[:, ::-1], classes[:, ::-1]
    if protocol.distort:
        pixels = distorted(pixels, draw)
    height, width = classes.shape
    whole = torch.zeros(3, protocol.crop, protocol.crop)
    filled = torch.full((protocol.crop, protocol.crop), IGNORE_INDEX, dtype=torch.uint8)
    whole[:, :height, :width] = normalize_image(pixels, normalization)
    filled[:height, :width] = torch.from_numpy(classes.copy())
    return whole, filled


def distorted(pixels: UInt8[np.ndarray, "h w 3"], draw: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Jitter brightness, contrast, saturation and hue, each with probability 1/2; contrast before or after colors."""
    if draw.random() < 0.5:
        pixels = _clipped(pixels + draw.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast = draw.uniform(*FACTOR) if draw.random() < 0.5 else 1.0
    first = draw.random() < 0.5
    pixels = _clipped(pixels * contrast) if first else pixels
    hsv = np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV"))
    if draw.random() < 0.5:
        hsv[..., 1] = _clipped(hsv[..., 1] * draw.uniform(*FACTOR))
    if draw.random() < 0.5:
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(256 * draw.uniform(-HUE, HUE))) % 256
    pixels = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return pixels if first else _clipped(pixels * contrast)


def _is_varied(classes: np.ndarray, max_share: float) -> bool:
    """Return whether there are two classes, and none exceeds its maximum fraction of the labeled pixels."""
    counts = np.bincount(classes[classes != IGNORE_INDEX].ravel())
    return int(np.count_nonzero(counts)) > 1 and float(counts.max()) < max_share * float(counts.sum())


def scaled(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Return (width, height) with the given shorter edge."""
    width, height = (max(1, round(side * short / min(size))) for side in size)
    return width, height


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)


def normalize_image(pixels: UInt8[np.ndarray, "h w 3"], normalization: Normalization) -> Float[Tensor, "3 h w"]:
    """Normalize pixels to a float tensor."""
    mean, std = (torch.tensor(each)[:, None, None] for each in normalization)
    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - mean) / std
