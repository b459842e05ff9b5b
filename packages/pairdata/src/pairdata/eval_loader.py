"""Labeled images for evaluation: in order, center-cropped and normalized, without augmentation."""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor

from genviews_core.pixel_range import Range
from pairdata.augment import IMAGENET_MEAN, IMAGENET_STD, Interpolation
from pairdata.folder_loader import FolderLoader


class LabeledImages:
    """Yields (images Float[B, C, size, size], labels Int64[B], index Int64[B]) from ROOT/<class>.

    Args:
        root: ROOT/<class>/.../<image>.
        size: size of the center crop, pixels.
        resize: short side before the crop, pixels; None for `size`.
        interpolation: "bilinear" or "bicubic", for the resize.
        mean: subtracted per channel, for values in [0, 1]; its length is C.
        std: divided by per channel.
        batch_size: images per batch of this process.
        workers: worker processes that decode; 0 decodes in this process.
        device: device of the batches.
        rank: rank of this process.
        world_size: number of processes that share the images.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.

    Raises:
        ValueError: an image is not in a class folder.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int,
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        batch_size: int = 256,
        workers: int = 0,
        device: str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        value_range: Range | None = None,
    ) -> None:
        self._loader = FolderLoader(
            root,
            batch_size=batch_size,
            size=size,
            resize=resize,
            fit="center",
            interpolation=interpolation,
            value_range=value_range,
            channels=len(mean),
            shuffle=False,
            drop_last=False,
            workers=workers,
            device=device,
            rank=rank,
            world_size=world_size,
        )
        if (self._loader.index.labels < 0).any():
            raise ValueError(f"expected {root}/<class>/<image>, got images outside class folders; move them into one")
        self._mean, self._std = mean, std

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders; labels are positions in it."""
        return self._loader.index.classes

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "B C size size"], Int64[Tensor, " B"], Int64[Tensor, " B"]]]:
        for batch in self._loader:
            values = batch.real.float().div_(255)
            mean, std = (values.new_tensor(triple)[:, None, None] for triple in (self._mean, self._std))
            yield values.sub_(mean).div_(std), batch.label, batch.index
