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

from genviews_core.listing import iter_images
from pairquality.encoder import FeatureEncoder
from pairquality.foreground import FittedOn, ForegroundPCA
from pairquality.images import choose_keys, read_batches
from pairquality.token_statistics import ThresholdRule, TokenMoments, UniformSample, merged, threshold_at

SMALL_MARGIN = 0.1
"""Below this many standard deviations between center and border the orientation is little more than a guess."""


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
    """First principal component of all tokens, turned so that the center of the images is high, and its threshold.

    The covariance is taken in float64, centered over all tokens. The sign of a component means nothing; objects avoid
    the border of images, so it is chosen such that the outermost tokens are lower on average than those inside. The
    threshold is taken over all tokens while they fit in `sample_bytes`, else over a uniform sample of them, which moves
    the share by 0.001 for 240,000 tokens (one standard deviation).

    Reference: GenView, https://arxiv.org/abs/2403.12003, section 3.3; 40% foreground is the paper's choice.

    Args:
        features: batches of token features; read once, so a generator will do.
        share_foreground: share of all tokens above the threshold, in (0, 1).
        centered: projections of x - mean; False gives those of GenView's code, x . v, whose threshold holds mean . v.
        grid: rows and columns of the tokens; square if None.
        skip_border: rings of outermost tokens left out of the direction and of its sign, where zero padding marks them;
            the threshold counts all tokens.
        threshold_rule: "quantile", or "histogram" as in GenView's code (there with a share of 0.35).
        sample_bytes: memory of each process for the threshold's sample.
        seed: of that sample.
        encoder: made the features; written down, and other encoders are refused later.
        data: which images, in words; written down.
        group: processes that read a part of the images each and fit one PCA together, the same on all; all must call.

    Raises:
        ValueError: no tokens, tokens of changing or unfit shape, NaN or constant tokens, share outside (0, 1).

    Warns:
        UserWarning: center and border hardly differ, so that the sign is uncertain.
    """
    if not 0 < share_foreground < 1:
        raise ValueError(f"share_foreground = {share_foreground}: give a share between 0 and 1, such as 0.4.")
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
        raise ValueError("No features to fit: the iterable gave no batch, or no image can be read.")
    direction, margin = moments.first_component()
    if abs(margin) < SMALL_MARGIN:
        warnings.warn(
            f"The image center differs from the border by only {abs(margin):.3f} standard deviations of the first "
            "component: which side is foreground is uncertain. Look at some maps.",
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
    """Of one process's sample, or of a sample of all processes' samples that is no larger."""
    if group is None:
        assert sample is not None
        return pca.project(sample.rows[None])[0]
    mine = None if sample is None else (sample.capacity, sample.keys, pca.project(sample.rows[None])[0])
    parts = [part for part in _gathered(mine, group) if part is not None]
    keys, projections = (torch.cat([part[place] for part in parts]) for place in (1, 2))
    capacity = min(len(keys), max(part[0] for part in parts))
    return projections[keys.topk(capacity, largest=False).indices]


def _joined(moments: TokenMoments | None, group: dist.ProcessGroup) -> TokenMoments | None:
    """The moments of all processes, in the order of their ranks; one that read no image adds nothing."""
    parts = [part for part in _gathered(None if moments is None else moments.cpu(), group) if part is not None]
    if not parts:
        return None
    parts[0].sums = merged([part.sums for part in parts])
    return parts[0]


def _gathered(mine: Any, group: dist.ProcessGroup) -> list[Any]:
    found: list[Any] = [None] * group.size()
    dist.all_gather_object(found, mine, group=group)
    return found


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
