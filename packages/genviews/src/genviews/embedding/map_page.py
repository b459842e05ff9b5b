"""A 2-D map of embeddings by t-SNE, as one HTML page with thumbnails."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

import viewgen
from genviews.embedding.options import EmbedOptions
from genviews.inspection.pictures import thumbnail
from genviews_core.files import atomic_write
from genviews_core.images import UnreadableImage
from genviews_core.progress import progress_bar
from ssl_eval.report.html import render_page

PERPLEXITY = 30
"""scikit-learn's default; lower for few points."""
COMPONENTS = 50
"""Number of principal components before t-SNE, as recommended at https://lvdmaaten.github.io/tsne/."""


def require_tsne() -> None:
    """Check that scikit-learn is installed.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("expected scikit-learn for --map, got none; run pip install scikit-learn")


def write_map(path: Path, embeddings: viewgen.Embeddings, options: EmbedOptions) -> int:
    """Write the page and return the number of its points.

    Raises:
        ValueError: there are fewer than four embeddings, or scikit-learn is not installed.
    """
    require_tsne()
    if len(embeddings) < 4:
        raise ValueError(f"expected at least 4 images for --map, got {len(embeddings)}; leave --map out")
    count = min(options.map_points, len(embeddings))
    rows = np.sort(np.random.default_rng(options.seed).choice(len(embeddings), count, replace=False))
    keys = [embeddings.keys[int(row)] for row in rows]
    positions = project(np.asarray(embeddings.vectors[rows], dtype=np.float32), options.seed)
    points = [
        {"x": round(float(x), 4), "y": round(float(y), 4), "key": key, "group": group_of(key), "src": src}
        for (x, y), key, src in zip(positions, keys, _thumbnails(options, keys), strict=True)
    ]
    groups = sorted({point["group"] for point in points})
    data = json.dumps(points, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    values: dict[str, Any] = {"backbone": embeddings.encoder_name, "dim": embeddings.dim, "total": len(embeddings)}
    page = render_page(
        "genviews.embedding",
        title=f"Map of {options.images.resolve().name}",
        images=options.images.resolve().name,
        shown=count,
        groups=groups,
        points=Markup(data),
        **values,
    )
    atomic_write(path, page)
    return count


def project(vectors: Float[np.ndarray, "N D"], seed: int) -> Float[np.ndarray, "N 2"]:
    """Return t-SNE positions of normalized vectors, scaled to [0, 1]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    components = min(COMPONENTS, *vectors.shape)
    reduced = PCA(components, random_state=seed).fit_transform(vectors)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca" if components > 1 else "random", random_state=seed)
    positions = tsne.fit_transform(reduced)
    low, high = positions.min(0), positions.max(0)
    return (positions - low) / (high - low).clip(1e-12)


def group_of(key: str) -> str:
    """Return the folder of a key, which is its class in a labeled data set; "" at the top level."""
    return key.rpartition("/")[0]


def _thumbnails(options: EmbedOptions, keys: list[str]) -> list[str]:
    """Return data URIs; "" for an image that cannot be read any more."""
    uris = []
    with progress_bar("thumbnails") as update:
        for key in keys:
            try:
                uris.append(thumbnail(options.images / key, options.thumbnail))
            except UnreadableImage:
                uris.append("")
            update(len(uris), len(keys))
    return uris
