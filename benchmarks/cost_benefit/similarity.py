"""Similarity of images and their views: the mean cosine of their embeddings (GenView's Table 10).

Shapes: N views, D embedding dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import viewgen
from benchmarks.cost_benefit.manifest_reader import keys_and_paths
from viewgen.manifest import Manifest


class Similarity(NamedTuple):
    """Similarity of the views of one folder.

    Attributes:
        views: number of compared views.
        mean: mean cosine of image and view.
        deviation: standard deviation of the cosine over the views.
        other: mean cosine of an image and the view of another image, as a baseline.
        lost: number of views for which an embedding of the view or its image is missing.
    """

    views: int
    mean: float
    deviation: float
    other: float
    lost: int


def measure_similarity(images: viewgen.Embeddings, views: viewgen.Embeddings, manifest: Manifest) -> Similarity:
    """Compare every view of a manifest with its image and with another image.

    Raises:
        ValueError: no view has an embedding, or the embeddings are from different encoders.
    """
    if images.encoder_hash != views.encoder_hash:
        raise ValueError(
            "expected images and views embedded by the same encoder, got different ones; choose another --work"
        )
    own, other, lost = [], [], 0
    for keys, paths in keys_and_paths(manifest):
        rows = [(images.keys.row(key), views.keys.row(path)) for key, path in zip(keys, paths, strict=True)]
        known = np.array([pair for pair in rows if None not in pair], dtype=np.int64).reshape(-1, 2)
        lost += len(rows) - len(known)
        sources, made = _unit(images.vectors[known[:, 0]]), _unit(views.vectors[known[:, 1]])
        own.append((sources * made).sum(axis=1))
        far = len(known) // 2  # images that are close in the list are often similar
        strange = known[:, 0] != np.roll(known[:, 0], far)
        other.append((np.roll(sources, far, axis=0) * made).sum(axis=1)[strange])
    cosines, chance = np.concatenate(own), np.concatenate(other)
    if not len(cosines):
        raise ValueError(f"expected embeddings of the views of {manifest.path} and of images, got none; check --work")
    nothing = float("nan")
    return Similarity(
        views=len(cosines),
        mean=float(cosines.mean()),
        deviation=float(cosines.std()),
        other=float(chance.mean()) if len(chance) else nothing,
        lost=lost,
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    values = vectors.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12)
