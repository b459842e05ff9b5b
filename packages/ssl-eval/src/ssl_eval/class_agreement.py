"""Do views keep the class of their images, as an independent classifier sees it.

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
    """How often a classifier gives an image the class that it should have.

    Attributes:
        share: in percent.
        error: standard error of the share, in percentage points, of images drawn independently.
        count: of images.
    """

    share: float
    error: float
    count: int


def class_agreement(predicted: Int[Tensor, " n"], source: Int[Tensor, " n"]) -> ClassAgreement:
    """The share of views to which a classifier gives their source's class.

    Its floor is `far_agreement` (views of any other image) and its ceiling what the classifier gives the sources
    themselves: a view that keeps the class cannot be recognised more often than they are.

    Args:
        predicted: the class that the classifier gives each view.
        source: the class of each view's source, from its label.

    Raises:
        ValueError: no views, or not one class for each.
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
    """What views of other images would have: each prediction is held against the class of another image.

    The images are put in a random circle, and each meets the next.

    Raises:
        ValueError: as `class_agreement`, or a single image.
    """
    if len(source) < 2:
        raise ValueError(f"expected two images or more to compare one with another, got {len(source)}; give more")
    circle = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).to(source.device)
    other = torch.empty_like(source)
    other[circle] = source[circle.roll(1)]
    return class_agreement(predicted, other)
