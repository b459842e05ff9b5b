"""Intersection over union of segmentations, counted over all pixels of a test set.

Shapes: c classes, h x w pixels.
"""

from jaxtyping import Float, Int, Integer
from torch import Tensor

IGNORE_INDEX = 255
"""Value of ignored pixels: object borders in PASCAL VOC."""


def confusion_matrix(
    guesses: Integer[Tensor, "*shape"], truth: Integer[Tensor, "*shape"], num_classes: int
) -> Int[Tensor, "c c"]:
    """Count the pixels of class i that are predicted as class j; pixels of value 255 are ignored."""
    counted = truth != IGNORE_INDEX
    pairs = truth[counted].long() * num_classes + guesses[counted].long()
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def class_ious(counts: Int[Tensor, "c c"]) -> Float[Tensor, " c"]:
    """Compute the intersection over union of each class, in [0, 1].

    NaN for a class that neither occurs nor is predicted.
    """
    right = counts.diagonal().double()
    return right / (counts.sum(dim=0) + counts.sum(dim=1) - right)


def mean_iou(counts: Int[Tensor, "c c"]) -> float:
    """Compute the mean IoU over the classes that occur or are predicted, in percent, as in the VOC challenge.

    https://doi.org/10.1007/s11263-014-0733-5, section 4.2

    Raises:
        ValueError: there are no labeled pixels.
    """
    if int(counts.sum()) == 0:
        raise ValueError("expected labeled pixels in the test images, got none")
    return 100.0 * float(class_ious(counts).nanmean())


def pixel_accuracy(counts: Int[Tensor, "c c"]) -> float:
    """Compute the fraction of correctly classified pixels, in percent."""
    return 100.0 * float(counts.diagonal().sum() / counts.sum())
