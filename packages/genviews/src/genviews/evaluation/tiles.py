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
from torch.utils.data import Dataset

from genviews.evaluation.datasets import CenterCrop
from ssl_eval.item_loader import load_items
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
        for pixels in load_items(self, requests, self.workers):
            yield pixels.to(self.device).float().div_(255).sub_(mean).div_(std)

    def __getitem__(self, tiles: Sequence[Path]) -> Tensor:
        squares = [self.crop(str(tile))[0] for tile in tiles]
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
