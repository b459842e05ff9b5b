"""Sources of the conditions of a chunk of views: images, cached embeddings, or interpolations of embeddings.

Shapes: B views of a chunk, N images of a chunk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genviews_core.channels import RGB
from genviews_core.images import UnreadableImage
from viewgen.embed import Embeddings
from viewgen.generator import Generator
from viewgen.interpolate import Interpolation, draw_alpha, nearest_partners, random_partner, slerp
from viewgen.keys import read_key
from viewgen.run.plan import WantedView
from viewgen.sharded import Images

NOT_EMBEDDED = "has no embedding; give the encoder, or embed this folder"


class Partner(NamedTuple):
    """The partner image of a view, and the weight of the image itself if the two were interpolated."""

    key: str
    alpha: float | None


class Conditions(NamedTuple):
    """Conditions for ``generate``, and the partners of views that have one, by index in the chunk."""

    values: Tensor
    partners: Mapping[int, Partner]


@runtime_checkable
class ConditionSource(Protocol):
    """Reads the sources of a chunk (in threads), then computes the conditions (on the generator's device)."""

    def read(self, views: Sequence[WantedView], map_many: Callable[..., Iterable]) -> dict[str, Any]:
        """Return the source of each key, or the reason why it cannot be read."""
        ...

    def conditions(self, views: Sequence[WantedView], sources: Mapping[str, Any]) -> Conditions:
        """Return the condition of each view; views without a source get that of another view."""
        ...


class FromImages:
    """Conditions computed from images by the generator.

    Images of one size go through ``condition`` in batches of fixed size ``most``, filled up with repetitions, so that a
    condition does not depend on which images of the chunk are readable.
    """

    def __init__(self, generator: Generator, images: Images, most: int) -> None:
        self._generator: Any = generator
        self._images, self._most = images, most
        self._size: int | None = getattr(generator, "input_size", None)
        self._pixels: dict[str, Any] = {"channels": getattr(generator, "channels", RGB)}
        self._pixels["value_range"] = getattr(generator, "value_range", None)
        self._prepares = hasattr(generator, "prepare")
        self._keyed = hasattr(generator, "condition_for")

    def read(self, views: Sequence[WantedView], map_many: Callable[..., Iterable]) -> dict[str, Any]:
        """Read images; see ``ConditionSource``."""
        keys = list(dict.fromkeys(view.key for view in views))
        return dict(zip(keys, map_many(self._read_one, keys), strict=True))

    def _read_one(self, key: str) -> Tensor | str:
        try:
            image = read_key(self._images, key, self._size, **self._pixels)
        except UnreadableImage as error:
            return str(error)
        return self._generator.prepare(image) if self._prepares else image

    def conditions(self, views: Sequence[WantedView], sources: Mapping[str, Any]) -> Conditions:
        """Compute conditions; see ``ConditionSource``."""
        indices = {key: index for index, key in enumerate(dict.fromkeys(view.key for view in views))}
        spare = next(key for key in indices if not isinstance(sources[key], str))
        keys = [spare if isinstance(sources[key], str) else key for key in indices]
        made = self._together(keys, sources) if self._size or self._prepares else self._one_by_one(keys, sources)
        return Conditions(made[[indices[view.key] for view in views]], {})

    def _together(self, keys: list[str], sources: Mapping[str, Any]) -> Tensor:
        filled = keys + keys[:1] * (self._most - len(keys))
        return self._condition(filled, torch.stack([sources[key] for key in filled]))[: len(keys)]

    def _one_by_one(self, keys: list[str], sources: Mapping[str, Any]) -> Tensor:
        made = [self._condition([key], sources[key].unsqueeze(0)) for key in keys]
        if len({one.shape for one in made}) > 1:
            raise ValueError("expected images and conditions of one size, got several; set the generator's input_size")
        return torch.cat(made)

    def _condition(self, keys: list[str], images: Tensor) -> Tensor:
        if self._keyed:
            return self._generator.condition_for(keys, images)
        return self._generator.encode(images) if self._prepares else self._generator.condition(images)


class FromImagesAndEmbeddings(FromImages):
    """Conditions of a generator with ``condition_with``: from images and their cached embeddings."""

    def __init__(self, generator: Generator, images: Images, most: int, embeddings: Embeddings) -> None:
        super().__init__(generator, images, most)
        self._embeddings = embeddings

    def _read_one(self, key: str) -> Tensor | str:
        return NOT_EMBEDDED if self._embeddings.keys.row(key) is None else super()._read_one(key)

    def _condition(self, keys: list[str], images: Tensor) -> Tensor:
        rows = [row for key in keys if (row := self._embeddings.keys.row(key)) is not None]
        return self._generator.condition_with(images, _vectors(self._embeddings, rows))


class FromEmbeddings:
    """Cached embeddings as conditions, optionally interpolated with those of a partner."""

    def __init__(self, embeddings: Embeddings, interpolate: Interpolation | None) -> None:
        self._embeddings, self._interpolation = embeddings, interpolate

    def read(self, views: Sequence[WantedView], map_many: Callable[..., Iterable]) -> dict[str, Any]:
        """Look up rows of the embeddings; see ``ConditionSource``."""
        rows = {key: self._embeddings.keys.row(key) for key in {view.key for view in views}}
        return {key: NOT_EMBEDDED if row is None else row for key, row in rows.items()}

    def conditions(self, views: Sequence[WantedView], sources: Mapping[str, Any]) -> Conditions:
        """Compute conditions; see ``ConditionSource``."""
        spare = next(view for view in views if not isinstance(sources[view.key], str))
        views = [spare if isinstance(sources[view.key], str) else view for view in views]
        rows = [sources[view.key] for view in views]
        own = _vectors(self._embeddings, rows)
        if self._interpolation is None:
            return Conditions(own, {})
        mixed = [index for index, view in enumerate(views) if view.k >= self._interpolation.from_k]
        if not mixed:
            return Conditions(own, {})
        others = self._partner_rows(
            [views[index] for index in mixed], [rows[index] for index in mixed], self._interpolation
        )
        alphas = [draw_alpha(views[index].seed, self._interpolation) for index in mixed]
        own[mixed] = slerp(own[mixed], _vectors(self._embeddings, others), torch.tensor(alphas, dtype=torch.float64))
        pairs = zip(mixed, others, alphas, strict=True)
        return Conditions(own, {index: Partner(self._embeddings.keys[row], alpha) for index, row, alpha in pairs})

    def _partner_rows(self, views: Sequence[WantedView], own: list[int], interpolation: Interpolation) -> list[int]:
        if interpolation.partner == "nearest":
            return nearest_partners(self._embeddings.vectors, own).tolist()
        return [random_partner(view.seed, row, len(self._embeddings)) for view, row in zip(views, own, strict=True)]


def _vectors(embeddings: Embeddings, rows: list[int]) -> Tensor:
    return torch.from_numpy(embeddings.vectors[rows].astype(np.float32))
