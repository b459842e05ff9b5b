"""DAVIS 2017's metrics: region similarity J, contour accuracy F, and their table.

https://arxiv.org/abs/1704.00675; https://github.com/davisvideochallenge/davis2017-evaluation at ac7c43f: metrics.py,
utils.py, evaluation_method.py.

Shapes: t frames, h x w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, hypot

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from numpy import ndarray
from scipy.spatial import KDTree

BOUND = 0.008
"""Maximum distance of matching contours, as a fraction of the image diagonal."""


def region_similarity(truth: Bool[ndarray, "h w"], predicted: Bool[ndarray, "h w"]) -> float:
    """Compute J, the intersection over union; 1 if both masks are empty."""
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else 1.0


def contour_accuracy(truth: Bool[ndarray, "h w"], predicted: Bool[ndarray, "h w"]) -> float:
    """Compute F, the harmonic mean of contour precision and recall; 1 if both contours are empty."""
    mine, right = (np.argwhere(contour(mask)) for mask in (predicted, truth))
    if not len(mine) or not len(right):
        return float(len(mine) == len(right))
    within = ceil(BOUND * hypot(*truth.shape))
    precision, recall = _fraction_near(mine, right, within), _fraction_near(right, mine, within)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Return the pixels that differ from their neighbor to the right, below, or both; the border is replicated."""
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != beyond[:-1, 1:]) | (mask != beyond[1:, :-1]) | (mask != beyond[1:, 1:])


def _fraction_near(points: Int[ndarray, "_ 2"], others: Int[ndarray, "_ 2"], within: int) -> float:
    """Compute the fraction of points within a distance of the other contour."""
    distances, _ = KDTree(others).query(points, distance_upper_bound=within + 0.5)
    return np.count_nonzero(distances <= within) / len(points)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of one measure over the frames of an object, or their means over objects.

    Attributes:
        mean: mean over frames.
        recall: fraction of frames above one half.
        decay: mean of the first quarter minus that of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Float[ndarray, " t"]) -> Statistics:
    """Compute the statistics of one object; adjacent quarters share a frame."""
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return Statistics(
        mean=float(values.mean()), recall=float((values > 0.5).mean()), decay=float(first.mean() - last.mean())
    )


@dataclass(frozen=True, kw_only=True)
class ObjectScores:
    """J and F of one object in every evaluated frame; `number` is its number in the masks."""

    number: int
    regions: Float[ndarray, " t"]
    contours: Float[ndarray, " t"]


def compare_masks(
    truth: Integer[ndarray, "t h w"], predicted: Integer[ndarray, "_ _ _"], numbers: Sequence[int]
) -> list[ObjectScores]:
    """Compute J and F of each object; masks contain 0 or object numbers.

    The official code measures every number up to the largest, and an absent object counts as perfectly segmented. If
    `numbers` are 1, 2, ..., as in DAVIS, the results are the same.

    Args:
        truth: annotated masks; numbers not in `numbers` are background.
        predicted: predicted masks.
        numbers: numbers of the annotated objects.

    Raises:
        ValueError: masks differ in size, or contain other object numbers.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"expected predicted masks of shape {list(truth.shape)}, got {list(predicted.shape)}")
    if odd := sorted(set(np.unique(predicted).tolist()) - {0, *numbers}):
        known = ", ".join(map(str, numbers))
        raise ValueError(f"expected 0 and the objects {known} in the predicted masks, got object {odd[0]}")
    followed = []
    for number in numbers:
        pairs = [(right == number, mine == number) for right, mine in zip(truth, predicted, strict=True)]
        regions = np.array([region_similarity(*pair) for pair in pairs])
        contours = np.array([contour_accuracy(*pair) for pair in pairs])
        followed.append(ObjectScores(number=number, regions=regions, contours=contours))
    return followed


def davis_table(objects: Sequence[ObjectScores]) -> dict[str, float]:
    """Return the official table in percent: means over the objects of all videos."""
    table: dict[str, float] = {}
    for letter, name in (("J", "regions"), ("F", "contours")):
        each = [statistics(getattr(followed, name)) for followed in objects]
        for part in ("mean", "recall", "decay"):
            table[f"{letter}-{part.title()}"] = 100 * float(np.mean([getattr(one, part) for one in each]))
    return {"J&F-Mean": (table["J-Mean"] + table["F-Mean"]) / 2, **table}
