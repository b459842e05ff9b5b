"""Images with their labels, as an evaluation wants them: in order, centre-cropped, normalised, never augmented."""

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor

from genviews_core.pixel_range import Range
from pairdata.augment import IMAGENET_MEAN, IMAGENET_STD, Interpolation
from pairdata.folder_loader import FolderLoader


class LabelledImages:
    """Yields (images Float[B, 3, size, size], labels Int64[B], index Int64[B]) of a folder with one folder a class.

    Args:
        root: ROOT/<class>/.../<image>.
        size: side of the centre crop, pixels.
        resize: short side before the crop, pixels; None crops nothing away of a square image.
        interpolation: "bilinear" or "bicubic", for the resize.
        mean: subtracted per channel, for values in [0, 1].
        std: divided by per channel.
        batch_size: images a batch of this process.
        workers: processes that decode; 0 decodes in this one.
        device: where the batches go.
        rank: of this process.
        world_size: how many processes share the images.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.

    Raises:
        ValueError: the images lie directly in the root, so that there are no labels.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int,
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
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
            shuffle=False,
            drop_last=False,
            workers=workers,
            device=device,
            rank=rank,
            world_size=world_size,
        )
        if (self._loader.index.labels < 0).any():
            raise ValueError(f"{root} holds images outside class folders: an evaluation reads ROOT/<class>/<image>")
        self._mean, self._std = mean, std

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the class folders; a label is a position among them."""
        return self._loader.index.classes

    def __len__(self) -> int:
        """Batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "B 3 size size"], Int64[Tensor, " B"], Int64[Tensor, " B"]]]:
        for batch in self._loader:
            values = batch.real.float().div_(255)
            mean, std = (values.new_tensor(triple)[:, None, None] for triple in (self._mean, self._std))
            yield values.sub_(mean).div_(std), batch.label, batch.index
