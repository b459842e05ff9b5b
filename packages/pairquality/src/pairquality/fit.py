"""Fit the foreground direction in one pass over any number of images, in one process or several.

Shapes: n images of a batch (_ in a stream of batches), l tokens of an image (a grid of rows x columns), d token width.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from genviews_core.distributed import all_gather_object
from genviews_core.listing import iter_images
from pairquality.encoder import FeatureEncoder
from pairquality.foreground import FittedOn, ForegroundPCA
from pairquality.images import choose_keys, read_batches
from pairquality.token_statistics import ThresholdRule, TokenMoments, UniformSample, merged, threshold_at

SMALL_MARGIN = 0.1
"""Margin between center and border, in standard deviations, below which the orientation is uncertain."""


@torch.no_grad()
def fit_pca(
    features: Iterable[Float[Tensor, "_ l d"]],
    share_foreground: float = 0.4,
    *,
    centered: bool = True,
    grid: tuple[int, int] | None = None,
    skip_border: int = 0,
    threshold_rule: ThresholdRule = "quantile",
    sample_bytes: int = 2**30,
    seed: int = 0,
    encoder: FeatureEncoder | None = None,
    data: str = "",
    group: dist.ProcessGroup | None = None,
) -> ForegroundPCA:
    """Fit the first principal component of all tokens, oriented toward the center of the images, and a threshold on it.

    The covariance is computed in float64, centered over all tokens. The sign of a component is arbitrary; objects avoid
    the border of images, so it is chosen such that the outermost tokens are lower on average than the inner ones. The
    threshold is computed from all tokens if they fit in `sample_bytes`, otherwise from a uniform sample, which changes
    the foreground fraction by 0.001 for 240,000 tokens (one standard deviation).

    Reference: GenView, https://arxiv.org/abs/2403.12003, section 3.3; 40% foreground is the paper's choice.

    Args:
        features: batches of token features; iterated once.
        share_foreground: fraction of all tokens above the threshold, in (0, 1).
        centered: project x - mean; False projects x, as GenView's code does.
        grid: numbers of rows and columns of tokens; by default a square.
        skip_border: rings of outermost tokens to exclude from direction and sign, where zero padding affects them; the
            threshold includes all tokens.
        threshold_rule: "quantile", or "histogram" as in GenView's code (which uses a fraction of 0.35).
        sample_bytes: memory per process for the sample of the threshold.
        seed: seed of that sample.
        encoder: encoder of the features; it is recorded, and other encoders are rejected later.
        data: description of the images; it is recorded.
        group: processes that each read some of the images and fit one PCA together; all must call.

    Raises:
        ValueError: there are no tokens, their shape changes or does not fit the grid, they are NaN or constant, or
            share_foreground is outside (0, 1).

    Warns:
        UserWarning: center and border hardly differ, so that the sign is uncertain.
    """
    if not 0 < share_foreground < 1:
        raise ValueError(
            f"expected share_foreground between 0 and 1, got {share_foreground}; give a fraction such as 0.4"
        )
    moments, sample = None, None
    for batch in features:
        if moments is None or sample is None:
            moments = TokenMoments(batch, grid, skip_border)
            rank = 0 if group is None else group.rank()
            sample = UniformSample(max(2, sample_bytes // (4 * batch.shape[2])), batch.shape[2], seed, stream=rank)
        moments.add(batch)
        sample.add(batch.flatten(0, 1))
    if group is not None:
        moments = _joined(moments, group)
    if moments is None or not moments.sums.count:
        raise ValueError("expected features to fit, got none; give readable images")
    direction, margin = moments.first_component()
    if abs(margin) < SMALL_MARGIN:
        warnings.warn(
            f"the image center differs from the border by only {abs(margin):.3f} standard deviations of the first "
            "component, so foreground and background may be swapped; check some maps with `pairquality visualize`",
            stacklevel=2,
        )
    pca = ForegroundPCA(
        direction=(direction if margin >= 0 else -direction).float(),
        mean=moments.sums.mean.cpu().float(),
        threshold=math.nan,
        margin=abs(margin),
        centered=centered,
        share_foreground=share_foreground,
        fitted_on=None if encoder is None else _fitted_on(encoder, data, moments.sums.images),
    )
    projections = _sampled_projections(pca, sample, group)
    return replace(pca, threshold=threshold_at(projections, share_foreground, threshold_rule))


def _fitted_on(encoder: FeatureEncoder, data: str, images: int) -> FittedOn:
    mean, std = encoder.normalization
    return FittedOn(
        encoder=encoder.name,
        encoder_hash=encoder.hash,
        size=encoder.size,
        mean=mean,
        std=std,
        data=data,
        images=images,
    )


def _sampled_projections(
    pca: ForegroundPCA, sample: UniformSample | None, group: dist.ProcessGroup | None
) -> Float[Tensor, " t"]:
    """Project one process's sample, or a sample of the same size from the samples of all processes."""
    if group is None:
        assert sample is not None
        return pca.project(sample.rows[None])[0]
    mine: Any = None if sample is None else (sample.capacity, sample.keys, pca.project(sample.rows[None])[0])
    parts = [part for part in all_gather_object(mine, group) if part is not None]
    keys, projections = (torch.cat([part[place] for part in parts]) for place in (1, 2))
    capacity = min(len(keys), max(part[0] for part in parts))
    return projections[keys.topk(capacity, largest=False).indices]


def _joined(moments: TokenMoments | None, group: dist.ProcessGroup) -> TokenMoments | None:
    """Merge the moments of all processes in the order of their ranks; a process without images has none."""
    parts = [part for part in all_gather_object(None if moments is None else moments.cpu(), group) if part is not None]
    if not parts:
        return None
    parts[0].sums = merged([part.sums for part in parts])
    return parts[0]


Progress = Callable[[int, int], None]
"""Function called with (done, total)."""


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
    """Run `fit_pca` on a sample of the images in a folder; unreadable images are skipped.

    Args:
        images_root: folder of images.
        encoder: encoder of the images.
        share_foreground: fraction of all tokens above the threshold, in (0, 1).
        images: size of the sample (10,000 in GenView); all images if there are fewer.
        seed: seed of the sample; whether an image is in it depends only on its key and the other keys' hashes.
        batch_size: images per forward pass.
        workers: threads that read images.
        on_progress: called with (images done, total images).
        group: processes that divide the images among themselves and fit one PCA together.
        options: further arguments of `fit_pca`.

    Raises:
        ValueError: no image can be read, or as `fit_pca` does.
    """
    if images < 1:
        raise ValueError(f"expected images of 1 or more, got {images}; GenView uses 10,000")
    chosen = choose_keys(iter_images(images_root), images, seed)
    if not chosen:
        raise ValueError(f"expected images under {images_root}, found none; give another folder")
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
        encoder: encoder; if its network takes images of one size only, the size is unchanged.
        skip_border: rings of outermost tokens that are excluded.
    """
    for size in (encoder.size, 2 * encoder.size, 4 * encoder.size):
        try:
            if min(encoder.grid_at(size)) > 2 * (skip_border + 1):
                return size
        except (AssertionError, RuntimeError, ValueError):  # libraries raise different types for an unsupported size
            break
    return encoder.size


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
