"""Weights of pairs in the loss, from scores of their quality.

Shapes: B pairs per process, h x w pixels of a view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

import sslzoo
from genviews.pretraining.options import QualityConfig
from genviews.recipes import Recipe
from genviews_core.distributed import default_group
from pairquality import ForegroundPCA, load_encoder, pair_weights
from pairquality.scorers import DistilledScorer, ExactScorer, OnlineScorer, PairScorer, load_distilled
from sslzoo.methods import Method

BINS = 10
"""Bins of the logged histogram of weights."""


def open_pair_weighter(
    recipe: Recipe, quality: QualityConfig, method: Method, context: sslzoo.DistContext
) -> PairWeighter | None:
    """Open the scorer that the recipe names; None for equal weights.

    Raises:
        ValueError: a file is missing or does not fit the encoder.
    """
    if recipe.pair_weighting == "none":
        return None
    group = default_group()
    if recipe.pair_weighting == "self":
        try:
            hook = sslzoo.PairFeatureHook(method, recipe.quality_layer)
        except ValueError as error:
            raise ValueError(f"--quality-layer {recipe.quality_layer}: {error}") from error
        scorer = OnlineScorer(pca_interval=recipe.pca_interval, group=group)
        return PairWeighter(scorer, recipe.gamma, record={}, hook=hook, group=group)
    opened = _open_exact if recipe.pair_weighting == "exact" else _open_distilled
    scorer, record = opened(recipe, quality, context)
    return PairWeighter(scorer, recipe.gamma, record=record, group=group)


def _open_exact(
    recipe: Recipe, quality: QualityConfig, context: sslzoo.DistContext
) -> tuple[ExactScorer, dict[str, str]]:
    if quality.pca is None:
        raise ValueError(
            "expected --pca with --pair-weighting exact, got none; create the file with `pairquality fit IMAGES "
            "--encoder ... --out ...`"
        )
    pca = ForegroundPCA.load(quality.pca)
    known = pca.fitted_on
    if known is None:
        raise ValueError(f"expected a PCA that names its encoder, got {quality.pca}; create it with `pairquality fit`")
    encoder = load_encoder(
        quality.encoder or known.encoder,
        size=known.size,
        mean=known.mean,
        std=known.std,
        autocast=_precision(recipe),
        device=context.device,
    )
    scorer = ExactScorer(encoder, pca, **_normalization(recipe))
    return scorer, {"encoder": encoder.hash, "pca": pca.hash}


def _open_distilled(
    recipe: Recipe, quality: QualityConfig, context: sslzoo.DistContext
) -> tuple[DistilledScorer, dict[str, str]]:
    if quality.scorer is None:
        raise ValueError(
            "expected --scorer with --pair-weighting distilled, got none; create it with `pairquality distill IMAGES "
            "...`"
        )
    options = {"autocast": _precision(recipe), "device": context.device}
    scorer = load_distilled(quality.scorer, **_normalization(recipe), **options)
    return scorer, {"scorer": scorer.network.hash}


def _precision(recipe: Recipe) -> torch.dtype | None:
    return torch.bfloat16 if recipe.precision == "bf16" else None


def _normalization(recipe: Recipe) -> dict[str, Any]:
    """Return the normalization of `make_views`."""
    return {"mean": recipe.augmentation.first.mean, "std": recipe.augmentation.first.std}


class PairWeighter:
    """Weights of the pairs of each step, normalized over the batch of all processes.

    Args:
        scorer: computes the quality q of two views.
        gamma: sharpness of the weights B softmax(gamma q).
        record: fingerprint of the scorer, compared when a run is resumed.
        hook: collects the feature maps that the scorer needs; None if it needs none.
        group: process group of the training.

    Attributes:
        quality: quality of the pairs of the last step, in this process.
        weights: their weights.
    """

    quality: Tensor
    weights: Tensor

    def __init__(
        self,
        scorer: PairScorer,
        gamma: float,
        *,
        record: dict[str, str],
        hook: sslzoo.PairFeatureHook | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        assert scorer.needs_maps == (hook is not None)
        self.scorer, self.gamma, self.record, self.hook, self.group = scorer, gamma, record, hook, group

    def weight_fn(self, views: Sequence[Float[Tensor, "B C h w"]]) -> Callable[[], Float[Tensor, "B"]]:
        """Return the function that computes the weights, from the two global views."""
        if self.hook is not None:
            self.hook.clear()

        def compute_weights() -> Tensor:
            maps = None if self.hook is None else self.hook.pop()
            self.quality = self.scorer(views[0], views[1], maps).quality
            self.weights = pair_weights(self.quality, self.gamma, group=self.group)
            return self.weights

        return torch.compiler.disable(compute_weights)  # pyright: ignore[reportReturnType]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scorer."""
        return self.scorer.state_dict()  # pyright: ignore[reportAttributeAccessIssue]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the scorer."""
        self.scorer.load_state_dict(state)  # pyright: ignore[reportAttributeAccessIssue]

    def summary(self) -> tuple[dict[str, float], dict[str, sslzoo.Histogram]]:
        """Return statistics of the last step: mean quality, effective sample fraction, histogram of the weights.

        Must be called on every process.
        """
        quality, weights = sslzoo.gather(self.quality), sslzoo.gather(self.weights)
        scalars = {"quality": float(quality.mean()), "effective_share": effective_share(weights)}
        counts, edges = np.histogram(weights.cpu().numpy(), bins=BINS)
        return scalars, {"weights": sslzoo.Histogram(edges=edges.tolist(), counts=counts.tolist())}


def effective_share(weights: Float[Tensor, "B"]) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2 divided by B: from 1/B (one pair) to 1 (equal weights)."""
    return float(weights.sum() ** 2 / (len(weights) * weights.square().sum()))
