"""Read the tiles of a slide as normalized batches.

Shapes: B tiles per batch, S height and width of a tile in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genviews.evaluation.datasets import CenterCrop
from genviews_core.reader_processes import start_method
from pairdata.decode import UnreadableImage
from ssl_eval.slides.slide_sets import Slide, tiles_of


class Tiles(Dataset):
    """Tiles of slides, cropped to squares.

    Args:
        crop: resize and center crop of a tile.
        images: `mean` and `std` of the backbone's inputs.
        batch_size: tiles per batch.
        workers: processes that decode; 0 decodes in the main process.
        device: device of the batches.
    """

    def __init__(
        self, crop: CenterCrop, images: Mapping[str, Any], *, batch_size: int, workers: int, device: torch.device
    ):
        self.crop, self.mean, self.std = crop, images["mean"], images["std"]
        self.batch_size, self.workers, self.device = batch_size, workers, device

    @property
    def preparation(self) -> str:
        """Description of the transforms; part of the key of stored embeddings, so its text must not change."""
        crop = self.crop
        text = f"Centre(side={crop.side}, resize={crop.resize}, interpolation={crop.interpolation!r})"
        return f"{text} mean={self.mean} std={self.std}"

    def batches(self, slide: Slide) -> Iterator[Float[Tensor, "B 3 S S"]]:
        """Yield the tiles of a slide in the order of their names.

        Raises:
            ValueError: a tile cannot be read.
        """
        tiles = tiles_of(slide.place)
        requests = [tiles[start : start + self.batch_size] for start in range(0, len(tiles), self.batch_size)]
        mean, std = (torch.tensor(each, device=self.device)[:, None, None] for each in (self.mean, self.std))
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=requests,  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            collate_fn=_as_read,
            multiprocessing_context=start_method(self.workers),
            generator=torch.Generator(),  # the loader would draw from the global one
        )
        for pixels in loader:
            if isinstance(pixels, str):
                raise ValueError(pixels)
            yield pixels.to(self.device).float().div_(255).sub_(mean).div_(std)

    def __getitem__(self, tiles: Sequence[Path]) -> Tensor | str:
        try:
            squares = [self.crop(str(tile))[0] for tile in tiles]
        except UnreadableImage as error:
            return str(error)
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _as_read(item: object) -> object:
    return item
