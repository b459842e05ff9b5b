"""Fitting the foreground direction on a folder of images."""

import heapq
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from pairquality.encoder import FeatureEncoder
from pairquality.fit import fit_pca
from pairquality.images import iter_images, read_batches
from pairquality.pca import ForegroundPCA

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def fit_images(
    images_root: str | os.PathLike[str],
    encoder: FeatureEncoder,
    share_foreground: float = 0.4,
    *,
    images: int = 10_000,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 4,
    on_progress: Progress | None = None,
    group: dist.ProcessGroup | None = None,
    **options: Any,
) -> ForegroundPCA:
    """`fit_pca` on some images of a folder; what cannot be read is left out.

    Args:
        images_root: the folder.
        encoder: makes the tokens.
        share_foreground: share of all tokens above the threshold, in (0, 1).
        images: how many, 10,000 in GenView; all if there are fewer.
        seed: of their choice, which does not depend on the order or the number of the other images.
        batch_size: images per pass.
        workers: threads that read images.
        on_progress: called with (images done, images in all).
        group: processes that share the images out among them and fit one PCA, the same on all.
        options: of `fit_pca`.

    Raises:
        ValueError: no image can be read, or as `fit_pca` does.
    """
    if images < 1:
        raise ValueError(f"images = {images}: give at least 1; GenView takes 10,000.")
    chosen = choose_keys(iter_images(images_root), images, seed)
    if not chosen:
        raise ValueError(f"No image was found under {images_root}.")
    digest = blake2b("\n".join(chosen).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    mine = chosen if group is None else chosen[group.rank() :: group.size()]
    features = _features(images_root, mine, encoder, batch_size, workers, on_progress)
    data = f"{len(chosen)} images chosen under {os.fspath(images_root)} with seed {seed}, keys {digest}"
    about = {"grid": encoder.grid, "encoder": encoder, "data": data, "seed": seed, "group": group}
    return fit_pca(features, share_foreground, **about, **options)


def size_with_center(encoder: FeatureEncoder, skip_border: int = 0) -> int:
    """Return the encoder's image size, or two or four times it if the feature map otherwise consists only of border.

    A small encoder's map of 32 px images may have 2 x 2 tokens, where center and border cannot be distinguished.

    Args:
        encoder: a network that takes images of any size; for others the size is unchanged.
        skip_border: rings of outermost tokens that are excluded.
    """
    for size in (encoder.size, 2 * encoder.size, 4 * encoder.size):
        try:
            if min(encoder.grid_at(size)) > 2 * (skip_border + 1):
                return size
        except (AssertionError, RuntimeError, ValueError):  # libraries raise different types for an unsupported size
            break
    return encoder.size


def choose_keys(keys: Iterator[str], count: int, seed: int) -> list[str]:
    """A uniform choice, sorted: the keys with the smallest hashes; holds no more than these."""

    def draw(key: str) -> bytes:
        return blake2b(f"choose images/{seed}/{key}".encode(errors="surrogateescape"), digest_size=16).digest()

    return sorted(heapq.nsmallest(count, keys, key=draw))


def _features(
    root: str | os.PathLike[str],
    keys: list[str],
    encoder: FeatureEncoder,
    batch_size: int,
    workers: int,
    on_progress: Progress | None,
) -> Iterator[Float[Tensor, "_ l d"]]:
    done = 0
    for batch in read_batches(root, keys, encoder.size, batch_size=batch_size, workers=workers):
        images = [image for _, image in batch if isinstance(image, Tensor)]
        done += len(batch)
        if images:
            yield encoder(torch.stack(images).to(encoder.mean.device))
        if on_progress is not None:
            on_progress(done, len(keys))
