"""Real images as views: the nearest neighbors in a pool, a baseline for generated views.

Shapes: B images of a batch, H, W their sides in pixels, D the embedding's length, K neighbors of each image.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from viewgen.embed import Embeddings
from viewgen.encoder import ImageEncoder, load_encoder
from viewgen.fingerprint import file_hash
from viewgen.generator import Supervision
from viewgen.keys import read_key
from viewgen.nearest_neighbors import ExactSearch, IVFSearch
from viewgen.seeding import generator_for


class RetrievalGenerator:
    """Real images as views: the nearest one of a pool by cosine similarity, or one of several nearest.

    An image's condition is the rows of its nearest neighbors in the pool; itself is left out by its key.

    Args:
        pool: folder of the pool's embeddings, as embed_images writes it.
        pool_images: folder of the pool's images.
        encoder: for images that are not of the pool, a network whose weights are those that made the pool's
            embeddings, or its name (timm/MODEL). Without it every image must be of the pool.
        search: exact compares with every image of the pool; ivf with a few cells of it, through faiss.
        neighbors: a view is drawn uniformly from this many nearest images, by its seed.
        output_size: size of the views in pixels.
        cells: number of cells of an ivf search; None for the square root of the pool's size.
        probes: cells of an ivf search looked into per image.
        device: device of an exact search and of the encoder.

    Raises:
        ValueError: if the pool has no finished embeddings or too few images, if its images are not there, or if the
            encoder is another than the pool's.
    """

    name = "retrieval"
    licence = "as the pool's images"

    def __init__(
        self,
        *,
        pool: str | os.PathLike[str],
        pool_images: str | os.PathLike[str],
        encoder: str | ImageEncoder | None = None,
        search: Literal["exact", "ivf"] = "exact",
        neighbors: int = 1,
        output_size: int = 224,
        cells: int | None = None,
        probes: int = 32,
        device: str = "cpu",
    ) -> None:
        if search not in ("exact", "ivf"):
            raise ValueError(f"expected search 'exact' or 'ivf', got {search!r}")
        if not Path(pool_images).is_dir():
            raise ValueError(f"expected the folder of the pool's images, got {pool_images}, which is not a folder")
        self.pool, self.images = Embeddings.load(pool), Path(pool_images)
        if not 0 < neighbors < len(self.pool):
            raise ValueError(f"expected neighbors in 1..{len(self.pool) - 1}, got {neighbors}")
        self.encoder = _checked(encoder, self.pool, device)
        vectors = self.pool.vectors
        self.search = IVFSearch(vectors, cells, probes) if search == "ivf" else ExactSearch(vectors, device)
        self.neighbors, self.output_size = neighbors, output_size
        self.supervision: Supervision = self.pool.supervision  # pyright: ignore[reportAttributeAccessIssue]
        self.model_hash = _pool_hash(self.pool)
        self.model_id = f"retrieval from {len(self.pool)} images by {self.pool.encoder_name}"
        self.input_size = self.pool.encoder_size
        self.settings = {"search": search, "neighbours": neighbors, "output_size": output_size}
        if isinstance(self.search, IVFSearch):
            self.settings |= {"cells": self.search.cells, "probes": probes}

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Int[Tensor, "B K"]:
        """Return the rows of the nearest images of the pool, nearest first, excluding none."""
        return self._nearest(self._embed(images), [-1] * len(images))

    def condition_for(self, keys: Sequence[str], images: UInt8[Tensor, "B 3 H W"] | None) -> Int[Tensor, "B K"]:
        """Return the rows of the nearest images of the pool, nearest first, excluding the images with these keys.

        Args:
            keys: keys of the images.
            images: used if the generator has an encoder; without it the pool's own embeddings are.

        Raises:
            ValueError: if there is no encoder and a key is not of the pool.
        """
        rows = [self.pool.keys.row(key) for key in keys]
        own = [-1 if row is None else row for row in rows]
        if images is not None and self.encoder is not None:
            return self._nearest(self._embed(images), own)
        missing = [key for key, row in zip(keys, own, strict=True) if row < 0]
        if missing:
            raise ValueError(f"expected images of the pool, got {missing[0]!r}; embed it there, or give encoder=")
        return self._nearest(torch.from_numpy(self.pool.vectors[own].astype(np.float32)), own)

    def generate(
        self, condition: Int[Tensor, "B K"], *, seeds: Sequence[int], strength: Tensor | None = None
    ) -> UInt8[Tensor, "B 3 S S"]:
        """Return one of each image's neighbors: its central square, resized to ``output_size``.

        Raises:
            ValueError: if a strength is given, or if an image of the pool cannot be read any more.
        """
        if strength is not None:
            raise ValueError("expected no strength, which retrieval does not support, got one; set neighbors instead")
        keys = self.partner_keys(condition, seeds)
        return torch.stack([read_key(self.images, key, self.output_size) for key in keys])

    def partner_keys(self, condition: Int[Tensor, "B K"], seeds: Sequence[int]) -> list[str]:
        """Return the key of the image that each view shows.

        Raises:
            ValueError: if the conditions are not this generator's.
        """
        if condition.shape[1:] != (self.neighbors,) or condition.is_floating_point():
            raise ValueError("expected rows of the pool as conditions, got embeddings; use condition_for")
        drawn = [int(torch.randint(self.neighbors, (), generator=generator_for(seed, "neighbour"))) for seed in seeds]
        return [self.pool.keys[int(rows[place])] for rows, place in zip(condition, drawn, strict=True)]

    def _nearest(self, vectors: Float[Tensor, "B D"], own: list[int]) -> Int[Tensor, "B K"]:
        return self.search(vectors, torch.tensor(own, dtype=torch.int64), self.neighbors)

    def _embed(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        if self.encoder is None:
            raise ValueError("expected an encoder for images outside the pool, got none; give encoder=")
        return self.encoder(images).cpu()


def _checked(encoder: str | ImageEncoder | None, pool: Embeddings, device: str) -> ImageEncoder | None:
    """Load the encoder if it is named, and reject one that did not embed the pool."""
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, size=pool.encoder_size, device=device)
    if encoder is not None and encoder.hash != pool.encoder_hash:
        raise ValueError(
            f"expected the encoder of the pool, {pool.encoder_name} (hash {pool.encoder_hash}), got one with hash "
            f"{encoder.hash}"
        )
    return encoder


def _pool_hash(pool: Embeddings) -> str:
    """Hash the keys and vectors, which determine the results."""
    parts = [file_hash(pool.folder / name) for name in ("keys.jsonl", "vectors.f16")]
    return blake2b("".join(parts).encode(), digest_size=16).hexdigest()
