"""Images with masks in batches to train a segmentation head on, and one by one to test it on.

Shapes: b images, side the crops' side, h x w pixels.
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
from ssl_eval.left_out import OnUnreadable, refuse
from ssl_eval.segmentation.training import SegmentationProtocol
from ssl_eval.segmentation.training_crop import Normalisation, normalised, scaled, training_crop
from ssl_eval.segmentation.voc import SegmentedImages

Batch = tuple[Float[Tensor, "b 3 side side"], UInt8[Tensor, "b side side"]]


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
        images: SegmentedImages,
        protocol: SegmentationProtocol,
        normalisation: Normalisation,
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
            ValueError: see SegmentedImages.read.
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
        images: SegmentedImages,
        protocol: SegmentationProtocol,
        normalisation: Normalisation,
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
        return normalised(pixels, self.normalisation), torch.from_numpy(mask)


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
