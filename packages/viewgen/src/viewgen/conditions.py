"""Where the conditions of a chunk of views come from: the images, cached embeddings, or between two of these.

Shapes: B views of a chunk.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from viewgen.embed import Embeddings
from viewgen.generator import Generator
from viewgen.images import UnreadableImage, key_path, read_image
from viewgen.interpolate import Interpolation, draw_alpha, nearest_partners, random_partner, slerp


class WantedView(NamedTuple):
    """View ``k`` of the image ``key``: its path under the views' root, and its seed."""

    key: str
    k: int
    path: str
    seed: int


class ConditionSource:
    """Holds one chunk's sources at a time: ``read`` them, then ask for their ``conditions``."""

    def __init__(
        self,
        generator: Generator,
        images_root: Path,
        embeddings: Embeddings | None,
        interpolate: Interpolation | None,
        workers: int,
    ) -> None:
        self.generator, self.images_root, self.workers = generator, images_root, workers
        self.embeddings, self.interpolate = embeddings, interpolate
        self._images: dict[str, Tensor] = {}
        self._partners: dict[WantedView, tuple[int, float]] = {}

    def read(self, views: Sequence[WantedView]) -> dict[str, str]:
        """Get the views' sources; returns what is wrong with those that cannot be had, by key."""
        keys = sorted({view.key for view in views})
        if self.embeddings is not None:
            return {key: "has no embedding" for key in keys if key not in self.embeddings.rows}
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            found = dict(zip(keys, pool.map(self._read_one, keys), strict=True))
        self._images = {key: image for key, image in found.items() if isinstance(image, Tensor)}
        return {key: error for key, error in found.items() if isinstance(error, str)}

    def _read_one(self, key: str) -> Tensor | str:
        try:
            return read_image(key_path(self.images_root, key), getattr(self.generator, "input_size", None))
        except UnreadableImage as error:
            return str(error)

    def conditions(self, views: Sequence[WantedView]) -> Tensor:
        """The condition of each view, first axis B."""
        if self.embeddings is None:
            return self._from_images(views)
        own = _vectors(self.embeddings, [self.embeddings.rows[view.key] for view in views])
        mixed = self._draw_partners(views)
        if mixed:
            pairs = [self._partners[views[place]] for place in mixed]
            alpha = torch.tensor([alpha for _, alpha in pairs], dtype=torch.float64)
            own[mixed] = slerp(own[mixed], _vectors(self.embeddings, [row for row, _ in pairs]), alpha)
        return own

    def partner_of(self, view: WantedView) -> tuple[str | None, float | None]:
        """The partner's key and alpha of a view whose conditions were made; (None, None) without interpolation."""
        if self.embeddings is None or view not in self._partners:
            return None, None
        row, alpha = self._partners[view]
        return self.embeddings.keys[row], alpha

    def _from_images(self, views: Sequence[WantedView]) -> Tensor:
        keys = sorted({view.key for view in views})
        images = [self._images[key] for key in keys]
        if len({image.shape for image in images}) == 1:
            conditions = self.generator.condition(torch.stack(images))
        else:
            conditions = self._one_by_one(images)
        place = {key: index for index, key in enumerate(keys)}
        return conditions[[place[view.key] for view in views]]

    def _one_by_one(self, images: list[Tensor]) -> Tensor:
        conditions = [self.generator.condition(image.unsqueeze(0)) for image in images]
        if len({condition.shape for condition in conditions}) > 1:
            raise ValueError(
                "the images have different sizes, and the generator's conditions too: give it an input_size"
            )
        return torch.cat(conditions)

    def _draw_partners(self, views: Sequence[WantedView]) -> list[int]:
        """Fill ``_partners`` for this chunk; returns the places of its interpolated views."""
        law, embeddings = self.interpolate, self.embeddings
        self._partners = {}
        if law is None or embeddings is None:
            return []
        mixed = [place for place, view in enumerate(views) if view.k >= law.from_k]
        own = [embeddings.rows[views[place].key] for place in mixed]
        if law.partner == "nearest":
            partners = nearest_partners(embeddings.vectors, own).tolist() if own else []
        else:
            seeds = [views[place].seed for place in mixed]
            partners = [random_partner(seed, row, len(embeddings)) for seed, row in zip(seeds, own, strict=True)]
        for place, row in zip(mixed, partners, strict=True):
            self._partners[views[place]] = (row, draw_alpha(views[place].seed, law))
        return mixed


def _vectors(embeddings: Embeddings, rows: list[int]) -> Tensor:
    return torch.from_numpy(embeddings.vectors[rows].astype(np.float32))
