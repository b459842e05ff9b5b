"""Class agreement: whether views keep the class of their images, according to an independent classifier.

Shapes: n images, with one view each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClassAgreement:
    """Agreement of a classifier's predictions with the expected classes.

    Attributes:
        share: agreement in percent.
        error: standard error of the agreement in percentage points, assuming independent images.
        count: number of images.
    """

    share: float
    error: float
    count: int


def class_agreement(predicted: Int[Tensor, " n"], source: Int[Tensor, " n"]) -> ClassAgreement:
    """Compute the fraction of views for which a classifier predicts the class of their source image.

    Compare it with `far_agreement` (views of other images) as the floor, and with the accuracy of the classifier on the
    source images as the ceiling.

    Args:
        predicted: predicted class of each view.
        source: label of the source image of each view.

    Raises:
        ValueError: the inputs are empty or differ in length.
    """
    if predicted.shape != source.shape or not len(source):
        raise ValueError(
            f"expected a predicted class and a source's class for each view, got {len(predicted)} and {len(source)}; "
            "give one of each for every view, and at least one view"
        )
    share = float((predicted == source.to(predicted.device)).double().mean())
    count = len(source)
    return ClassAgreement(share=100 * share, error=100 * math.sqrt(share * (1 - share) / count), count=count)


def far_agreement(predicted: Int[Tensor, " n"], source: Int[Tensor, " n"], *, seed: int = 0) -> ClassAgreement:
    """Compute the class agreement of views with other images, as a baseline.

    Each prediction is compared with the class of the next image in a random cyclic order.

    Raises:
        ValueError: as `class_agreement`, or fewer than two images.
    """
    if len(source) < 2:
        raise ValueError(f"expected two images or more to compare one with another, got {len(source)}; give more")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).to(source.device)
    other = torch.empty_like(source)
    other[order] = source[order.roll(1)]
    return class_agreement(predicted, other)
