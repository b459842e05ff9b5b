"""Linear probe: softmax regression on frozen features, with the learning rate chosen on held-out data.

Shapes: n training images, m held-out images, b batch, d feature width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from genviews_core.distributed import all_gather_object, rank, world_size
from ssl_eval.features import Features, check_comparable
from ssl_eval.protocols import BY_EPOCH, Schedule, SGDConfig
from ssl_eval.rng import seeded_generator
from ssl_eval.softmax_regression import LinearClassifiers, evaluate, train_linear

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Spans what official code uses for 256 images a step, from GenView's 0.1 and BYOL's 0.2 to MoCo v2's 30."""

Normalization = Literal["none", "standardize", "l2"]


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    """Result of a linear probe.

    Attributes:
        accuracy: top-1 accuracy on the test set in percent.
        top5: top-5 accuracy on the test set in percent.
        learning_rate: the selected learning rate.
        holdout_accuracies: top-1 accuracy of each learning rate on held-out training images in percent; empty for a
            single learning rate.
    """

    accuracy: float
    top5: float
    learning_rate: float
    holdout_accuracies: dict[float, float]


def linear_probe(
    train: Features,
    test: Features,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = 100,
    batch_size: int = 256,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    larc: bool = False,
    schedule: Schedule = BY_EPOCH,
    holdout: float = 0.1,
    seed: int = 0,
    normalize_features: Normalization = "none",
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    group: dist.ProcessGroup | None = None,
) -> LinearResult:
    """Train softmax regression by SGD, select the learning rate on held-out training images, and test once.

    All learning rates are trained together without a fraction `holdout` of every class. The best one (the first of
    equals) is trained again on all training images, and only that classifier is tested.

    MoCo, SimSiam and DINO probe the features as they are: "none". "standardize" (mean 0, deviation 1 over the training
    images) stands for the batch norm without parameters that other protocols (MAE's) put first; "l2" divides each
    vector by its length.

    Args:
        train: training features.
        test: test features.
        learning_rates: initial learning rates.
        epochs: number of epochs.
        batch_size: images per step; the last batch of an epoch may be smaller.
        weight_decay: L2, on weight and bias, as torch.optim.SGD.
        momentum: see torch.optim.SGD.
        nesterov: see torch.optim.SGD.
        larc: whether to adapt learning rates to the norms of each layer, see `SGDConfig`.
        schedule: schedule of the learning rates.
        holdout: fraction of every class that is held out, in (0, 1).
        seed: seed of the initial weights, the held-out images and the order of the images.
        normalize_features: normalization of the features.
        num_classes: number of classes; None for the largest training label plus one.
        device: device of the computation; None for that of the training features.
        group: processes that share the learning rates; each has all features and gets the same result.

    Raises:
        ValueError: the sets do not match, options are out of range, or training diverged at every learning rate.
    """
    check_comparable(train, test)
    classes = train.num_classes if num_classes is None else num_classes
    if classes < train.num_classes:
        raise ValueError(f"expected num_classes above the labels, got {classes} and the label {train.num_classes - 1}")
    if not learning_rates or min(learning_rates) <= 0:
        raise ValueError(f"expected one or more learning_rates, all above 0, got {learning_rates}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"expected epochs and batch_size of 1 or more, got {epochs} and {batch_size}")
    place = train.features.device if device is None else torch.device(device)
    prepare = _preparation(train.features, normalize_features, place)
    descent = SGDConfig(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, larc=larc)
    fit = partial(
        train_linear, num_classes=classes, epochs=epochs, batch_size=batch_size, descent=descent, schedule=schedule,
        seed=seed, prepare=prepare, device=place,
    )  # fmt: skip
    chosen, scores = learning_rates[0], {}
    if len(learning_rates) > 1:
        kept, held = stratified_holdout(train.labels, holdout, seed)
        fit_kept, held_out = partial(fit, train.select(kept)), train.select(held)
        own = _held_out_scores(fit_kept, held_out, learning_rates[rank(group) :: world_size(group)], prepare, place)
        accuracies = {rate: value for part in all_gather_object(own, group) for rate, value in part.items()}
        scores = {rate: accuracies[rate] for rate in learning_rates}
        chosen = best_learning_rate(scores)
    (reached,) = evaluate(fit(train, learning_rates=[chosen]), test, prepare=prepare, device=place)
    reached = all_gather_object(reached, group)[0]
    return LinearResult(
        accuracy=reached.top1,
        top5=reached.top5,
        learning_rate=chosen,
        holdout_accuracies={rate: 0.0 if math.isnan(value) else value for rate, value in scores.items()},
    )


def _held_out_scores(
    fit: Callable[..., LinearClassifiers],
    held_out: Features,
    rates: Sequence[float],
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
) -> dict[float, float]:
    """Return the held-out top-1 accuracy of each learning rate; NaN if training diverged."""
    if not rates:
        return {}
    model = fit(learning_rates=rates)
    finite = model.weight.isfinite().flatten(1).all(dim=1).tolist()
    reached = evaluate(model, held_out, prepare=prepare, device=device)
    return {rate: score.top1 if whole else math.nan for rate, score, whole in zip(rates, reached, finite, strict=True)}


def best_learning_rate(scores: dict[float, float]) -> float:
    """Return the learning rate with the highest score, the first of equals.

    Raises:
        ValueError: training diverged at every learning rate (NaN).
    """
    if all(math.isnan(value) for value in scores.values()):
        raise ValueError(f"training diverged at every learning rate of {list(scores)}; give smaller ones")
    return max(scores, key=lambda rate: -1.0 if math.isnan(scores[rate]) else scores[rate])


def stratified_holdout(
    labels: Int[Tensor, " n"], fraction: float, seed: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " m"]]:
    """Split rows into kept and held-out ones, both ascending; `fraction` of each class, rounded, is held out.

    Of a class with two images or more, at least one is held out and at least one is kept; a single image is kept.

    Raises:
        ValueError: the fraction is outside (0, 1), or no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"expected holdout between 0 and 1, such as 0.1, got {fraction}")
    shuffled = torch.randperm(len(labels), generator=seeded_generator(seed, "holdout")).to(labels.device)
    held = []
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        held.append(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    is_held = torch.zeros_like(labels, dtype=torch.bool)
    is_held[torch.cat(held)] = True
    if not is_held.any():
        raise ValueError("expected several training images per class to hold out some, got one; give one learning rate")
    return (~is_held).nonzero().squeeze(1), is_held.nonzero().squeeze(1)


def _preparation(
    features: Float[Tensor, "n d"], normalize_features: Normalization, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the normalization of each batch [b, d] of features."""
    if normalize_features == "none":
        return lambda inputs: inputs
    if normalize_features == "l2":
        return partial(normalize, dim=1)
    if normalize_features == "standardize":
        variance, mean = torch.var_mean(features.float(), dim=0, correction=0)
        mean, factor = mean.to(device), (variance + 1e-6).rsqrt().to(device)  # MAE's batch norm: eps 1e-6
        return lambda inputs: (inputs - mean) * factor
    raise ValueError(f'expected normalize_features "none", "standardize" or "l2", got {normalize_features!r}')
