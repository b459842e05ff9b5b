"""Sources of the conditions of a chunk of views: images, cached embeddings, both, or interpolations of them.

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


def draw_partners(
    views: Sequence[WantedView], embeddings: Embeddings, interpolation: Interpolation
) -> dict[int, Partner]:
    """Return the partner and alpha of each view that is interpolated, by index; all must have an embedding.

    Raises:
        ValueError: if there are fewer than two embeddings.
    """
    mixed = [index for index, view in enumerate(views) if view.k >= interpolation.from_k]
    own = _rows(embeddings, [views[index].key for index in mixed])
    if interpolation.partner == "nearest":
        others = nearest_partners(embeddings.vectors, own).tolist() if own else []
    else:
        others = [random_partner(views[i].seed, row, len(embeddings)) for i, row in zip(mixed, own, strict=True)]
    return {
        index: Partner(embeddings.keys[row], draw_alpha(views[index].seed, interpolation))
        for index, row in zip(mixed, others, strict=True)
    }


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
        return self._generator.condition_with(images, _vectors(self._embeddings, keys))


class FromInterpolatedImages(FromImagesAndEmbeddings):
    """Conditions between those of two images, for a generator that starts from the image with noise added.

    Embeddings are interpolated on the sphere, images (or latents) linearly. The generator adds the same noise that it
    would add to each of the two, so it starts from the linear mixture of two noisy images (compare
    https://arxiv.org/abs/2307.12560, which interpolates noisy latents at several noise levels).
    """

    def __init__(
        self, generator: Generator, images: Images, most: int, embeddings: Embeddings, interpolation: Interpolation
    ) -> None:
        super().__init__(generator, images, most, embeddings)
        self._interpolation = interpolation

    def read(self, views: Sequence[WantedView], map_many: Callable[..., Iterable]) -> dict[str, Any]:
        """Read images and those of their partners; see ``ConditionSource``."""
        embedded = [view for view in views if self._embeddings.keys.row(view.key) is not None]
        drawn = draw_partners(embedded, self._embeddings, self._interpolation)
        partners: dict[str, dict[int, Partner]] = {view.key: {} for view in views}
        for index, partner in drawn.items():
            partners[embedded[index].key][embedded[index].k] = partner
        keys = list(dict.fromkeys([*partners, *(partner.key for partner in drawn.values())]))
        images = dict(zip(keys, map_many(self._read_one, keys), strict=True))
        return {key: _pairs_or_error(key, others, images) for key, others in partners.items()}

    def conditions(self, views: Sequence[WantedView], sources: Mapping[str, Any]) -> Conditions:
        """Compute conditions; see ``ConditionSource``."""
        views = _with_sources(views, sources)
        found = {index: sources[view.key].partners.get(view.k) for index, view in enumerate(views)}
        partners = {index: partner for index, partner in found.items() if partner is not None}
        embeddings = _interpolated_vectors(self._embeddings, [view.key for view in views], partners)
        own = torch.stack([sources[view.key].image for view in views])
        others, alphas = own.clone(), torch.ones(len(views), 1)
        for index, partner in partners.items():
            others[index], alphas[index] = sources[views[index].key].partner_images[partner.key], partner.alpha
        first, second = (self._generator.condition_with(images, embeddings) for images in (own, others))
        return Conditions(torch.lerp(second, first, alphas.to(first)), partners)


class _Pairs(NamedTuple):
    """An image, the partner of each of its interpolated views k, and the images of the partners by key."""

    image: Tensor
    partners: Mapping[int, Partner]
    partner_images: Mapping[str, Tensor]


def _pairs_or_error(key: str, partners: Mapping[int, Partner], images: Mapping[str, Any]) -> _Pairs | str:
    """Return the images of a key's views, or why one of them cannot be read."""
    if isinstance(images[key], str):
        return images[key]
    others = {partner.key: images[partner.key] for partner in partners.values()}
    for other, image in others.items():
        if isinstance(image, str):
            return f"its partner {other} cannot be read: {image}"
    return _Pairs(images[key], partners, others)


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
        views = _with_sources(views, sources)
        interpolation = self._interpolation
        partners = {} if interpolation is None else draw_partners(views, self._embeddings, interpolation)
        return Conditions(_interpolated_vectors(self._embeddings, [view.key for view in views], partners), partners)


def _with_sources(views: Sequence[WantedView], sources: Mapping[str, Any]) -> list[WantedView]:
    """Return the views, with those without a source replaced by one that has a source."""
    spare = next(view for view in views if not isinstance(sources[view.key], str))
    return [spare if isinstance(sources[view.key], str) else view for view in views]


def _interpolated_vectors(embeddings: Embeddings, keys: list[str], partners: Mapping[int, Partner]) -> Tensor:
    """Return the embedding of each key, interpolated with that of its partner if it has one."""
    vectors = _vectors(embeddings, keys)
    if partners:
        mixed = list(partners)
        others = _vectors(embeddings, [partner.key for partner in partners.values()])
        alphas = torch.tensor([partner.alpha for partner in partners.values()], dtype=torch.float64)
        vectors[mixed] = slerp(vectors[mixed], others, alphas)
    return vectors


def _rows(embeddings: Embeddings, keys: list[str]) -> list[int]:
    return [row for key in keys if (row := embeddings.keys.row(key)) is not None]


def _vectors(embeddings: Embeddings, keys: list[str]) -> Tensor:
    return torch.from_numpy(embeddings.vectors[_rows(embeddings, keys)].astype(np.float32))
