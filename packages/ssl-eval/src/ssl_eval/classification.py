"""Labeled images for training and test, and top-1 and top-5 accuracy counted over batches and processes.

Shapes: b batch, r classifiers, c classes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from genviews_core.distributed import all_reduce_sum

Batches = Iterable[Sequence[Tensor]]
"""(images, labels) or (images, labels, anything further)."""


@runtime_checkable
class EpochLoader(Protocol):
    """A loader with deterministic epochs: order and crops depend on the number of the epoch."""

    def __len__(self) -> int:
        """Return the number of batches per epoch on this process."""
        ...

    def epoch(self, epoch: int) -> Batches:
        """Return the batches of an epoch."""
        ...


Training = EpochLoader | Sequence[Sequence[Tensor]] | Iterable[Sequence[Tensor]]
"""An `EpochLoader`, or anything with a length that can be read again every epoch: a list, torch's DataLoader."""


def batches_of(train: Training, epoch: int) -> Batches:
    """Return the batches of an epoch."""
    return train.epoch(epoch) if isinstance(train, EpochLoader) else train


def steps_of(train: Training) -> int:
    """Return the number of batches per epoch.

    Raises:
        ValueError: it has no length, or is empty.
    """
    if not hasattr(train, "__len__"):
        raise ValueError(
            f"expected a training loader with a length, to iterate every epoch, got {type(train).__name__}"
        )
    steps = len(train)  # pyright: ignore[reportArgumentType]
    if steps == 0:
        raise ValueError("expected at least one training batch, got none; lower the batch size, or give more images")
    return steps


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError for labels out of range."""
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"expected labels in 0..{num_classes - 1}, got {low if low < 0 else high}")


@torch.no_grad()
def feature_width(network: nn.Module, images: Batches, device: str | torch.device) -> int:
    """Return the feature width of a network, which must be in evaluation mode.

    Raises:
        ValueError: there are no images, or the network does not return one vector per image.
    """
    first = next(iter(images), None)
    if first is None:
        raise ValueError("expected one or more test images from the loader, got none")
    features = network(first[0][:1].to(device))
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"expected features [batch, width] from the backbone, got {shape} for a batch of one; pool them"
        )
    return features.shape[1]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy in percent.

    Attributes:
        top1: fraction of images whose class is the most likely one.
        top5: fraction of images whose class is among the five most likely; 100 with five classes or fewer.
    """

    top1: float
    top5: float


def count_hits(logits: Float[Tensor, "b r c"], labels: Int[Tensor, " b"]) -> Int[Tensor, "2 r"]:
    """Count the correct top-1 and top-5 predictions of each classifier; non-finite logits count as wrong."""
    guesses = logits.topk(min(5, logits.shape[2]), dim=2).indices
    hits = (guesses == labels[:, None, None]) & logits.isfinite().all(dim=2, keepdim=True)
    return torch.stack([hits[:, :, 0].sum(dim=0), hits.any(dim=2).sum(dim=0)])


@torch.no_grad()
def score(
    batches: Batches,
    classify: Callable[[Tensor], Float[Tensor, "b r c"]],
    *,
    num_classes: int,
    classifiers: int = 1,
    device: str | torch.device,
    group: dist.ProcessGroup | None = None,
) -> list[Scores]:
    """Compute the accuracy of each classifier.

    Args:
        batches: yields (images, labels), each image on one process only.
        classify: maps images to the logits of all classifiers.
        num_classes: number of classes c.
        classifiers: number of classifiers r.
        device: device of the computation.
        group: processes that share the images.

    Raises:
        ValueError: there are no images, or labels are out of range.
    """
    hits, images = torch.zeros(2, classifiers, dtype=torch.long, device=device), 0
    for inputs, labels, *_ in batches:
        check_labels(labels, num_classes)
        hits += count_hits(classify(inputs.to(device, non_blocking=True)), labels.to(device))
        images += len(labels)
    total = int(all_reduce_sum(torch.tensor([images], device=device), group))
    if total == 0:
        raise ValueError("expected one or more test images from the loader, got none")
    shares = 100.0 * all_reduce_sum(hits, group).double() / total
    return [Scores(top1=first, top5=five) for first, five in shares.T.tolist()]
