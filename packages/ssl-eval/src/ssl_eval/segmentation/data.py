"""Images with masks: training crops in batches, and whole test images one by one.

Training images are scaled, cropped, flipped and color-distorted as in mmsegmentation
(open-mmlab/mmsegmentation@0066ce8 mmseg/datasets/pipelines/transforms.py), but with PIL's antialiased resizing and
without a limit of the long side, which matters if it is four times the short side.

Shapes: b images, side x side pixels of a crop, h x w pixels.
"""

import hashlib
import sys
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genviews_core.images import UnreadableImage
from ssl_eval.image_files import OnUnreadable, refuse
from ssl_eval.segmentation.mean_iou import IGNORE_INDEX
from ssl_eval.segmentation.training import SegmentationProtocol
from ssl_eval.segmentation.voc import SegmentationDataset

Batch = tuple[Float[Tensor, "b 3 side side"], UInt8[Tensor, "b side side"]]


Normalization = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of the channels, of values in [0, 1]."""

TRIES = 10
"""Crops that are drawn until no class has too large a share."""


class TrainingCrops(Dataset):
    """Batches by the number of their step; drawn from the seed and the image's place in the training alone.

    Args:
        images: labelled.
        protocol: of crops and batches.
        normalisation: of the values.
        seed: of everything drawn.
        rank: of this process.
        world_size: processes that share each batch.
        workers: processes that read images.

    Raises:
        ValueError: a batch that does not divide over the processes.
    """

    def __init__(
        self,
        images: SegmentationDataset,
        protocol: SegmentationProtocol,
        normalisation: Normalization,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ):
        if protocol.batch_size % world_size:
            raise ValueError(f"batch size {protocol.batch_size} does not divide over {world_size} processes")
        self.images, self.protocol, self.normalisation, self.seed = images, protocol, normalisation, seed
        self.share = range(rank * protocol.batch_size // world_size, (rank + 1) * protocol.batch_size // world_size)
        self.workers = workers

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Those of the steps from `first` up to `last`.

        Raises:
            ValueError: see SegmentationDataset.read.
        """
        yield from _read(self, range(first, last), self.workers)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor] | str:
        places = [step * self.protocol.batch_size + each for each in self.share]
        try:
            crops = [self._crop(place) for place in places]
        except ValueError as error:
            return str(error)
        return torch.stack([image for image, _ in crops]), torch.stack([mask for _, mask in crops])

    def _crop(self, place: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(place, len(self.images))
        row = int(_generator(self.seed, "order", epoch).permutation(len(self.images))[position])
        image, mask = self.images.read(row)
        return training_crop(image, mask, self.protocol, self.normalisation, _generator(self.seed, "crop", place))


class TestImages(Dataset):
    """Whole images at the protocol's size, with their masks as they are; each on one process.

    Args:
        images: labelled.
        protocol: of their size.
        normalisation: of the values.
        rank: of this process.
        world_size: processes that share the images.
        workers: processes that read them.
        on_unreadable: called with an error message for each unreadable image or mask, which is then skipped; raises by
            default.
    """

    __test__ = False

    def __init__(
        self,
        images: SegmentationDataset,
        protocol: SegmentationProtocol,
        normalisation: Normalization,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_unreadable: OnUnreadable = refuse,
    ):
        self.images, self.protocol, self.normalisation = images, protocol, normalisation
        self.on_unreadable = on_unreadable
        self.rows, self.workers = range(rank, len(images), world_size), workers

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "3 h w"], UInt8[Tensor, "H W"]]]:
        yield from _read(self, self.rows, self.workers, self.on_unreadable)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor] | str:
        try:
            image, mask = self.images.read(row)
        except UnreadableImage as error:
            return _Unreadable(error)
        except ValueError as error:
            return str(error)
        pixels = np.asarray(image.resize(scaled(image.size, self.protocol.short), Image.Resampling.BILINEAR))
        return normalize_image(pixels, self.normalisation), torch.from_numpy(mask)


def _generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"segmentation/{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


class _Unreadable(str):
    """Error message of an unreadable file, as opposed to one with invalid content."""


def _read(
    items: Dataset, places: range, workers: int, on_unreadable: OnUnreadable = refuse
) -> Iterator[tuple[Tensor, Tensor]]:
    """The items at these places, in order."""
    loader = DataLoader(
        items,
        batch_size=None,
        sampler=places,
        num_workers=workers,
        collate_fn=_as_read,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    for item in loader:
        if isinstance(item, _Unreadable):
            on_unreadable(str(item))
        elif isinstance(item, str):
            raise ValueError(item)
        else:
            yield item


def _as_read(item: object) -> object:
    return item


BRIGHTNESS, FACTOR, HUE = 32.0, (0.5, 1.5), 18 / 180
"""Largest shift of the values; smallest and largest factor of contrast and saturation; largest turn of the hue."""


def training_crop(
    image: Image.Image,
    mask: np.ndarray,
    protocol: SegmentationProtocol,
    normalisation: Normalization,
    draw: np.random.Generator,
) -> tuple[Float[Tensor, "3 side side"], UInt8[Tensor, "side side"]]:
    """One image, scaled, cropped, flipped, distorted and filled up: the image with mean values, the mask with 255."""
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
    whole[:, :height, :width] = normalize_image(pixels, normalisation)
    filled[:height, :width] = torch.from_numpy(classes.copy())
    return whole, filled


def distorted(pixels: UInt8[np.ndarray, "h w 3"], draw: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Brightness, contrast, saturation and hue, each with even chance; contrast before or after the colours."""
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
    """Whether there are two classes, and none has more than its share of the pixels that count."""
    counts = np.bincount(classes[classes != IGNORE_INDEX].ravel())
    return int(np.count_nonzero(counts)) > 1 and float(counts.max()) < max_share * float(counts.sum())


def scaled(size: tuple[int, int], short: int) -> tuple[int, int]:
    """(width, height) with the short side as asked for."""
    width, height = (max(1, round(side * short / min(size))) for side in size)
    return width, height


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)


def normalize_image(pixels: UInt8[np.ndarray, "h w 3"], normalisation: Normalization) -> Float[Tensor, "3 h w"]:
    """As the network wants it."""
    mean, std = (torch.tensor(each)[:, None, None] for each in normalisation)
    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - mean) / std
