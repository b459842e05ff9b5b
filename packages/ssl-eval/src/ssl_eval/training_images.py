"""Labelled images to train on, epoch by epoch.

Shapes: b batch.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batches = Iterable[Sequence[Tensor]]
"""(images, labels) or (images, labels, anything further)."""


@runtime_checkable
class EpochLoader(Protocol):
    """A loader whose every epoch is another order, and other crops, and always the same for the same number."""

    def __len__(self) -> int:
        """Batches an epoch, on this process."""
        ...

    def epoch(self, epoch: int) -> Batches:
        """The batches of an epoch."""
        ...


Training = EpochLoader | Sequence[Sequence[Tensor]] | Iterable[Sequence[Tensor]]
"""An `EpochLoader`, or anything with a length that can be read again every epoch: a list, torch's DataLoader."""


def batches_of(train: Training, epoch: int) -> Batches:
    """The batches of an epoch."""
    return train.epoch(epoch) if isinstance(train, EpochLoader) else train


def steps_of(train: Training) -> int:
    """Batches an epoch.

    Raises:
        ValueError: it has no length, or none at all.
    """
    if not hasattr(train, "__len__"):
        raise ValueError("the training images must be a loader that can be read every epoch, and have a length")
    steps = len(train)  # pyright: ignore[reportArgumentType]
    if steps == 0:
        raise ValueError("the training images make no batch: lower the batch size, or give more images")
    return steps


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raises ValueError for a label that is no class."""
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(f"label {low if low < 0 else high} is not one of {num_classes} classes, counted from 0")


@torch.no_grad()
def feature_width(network: nn.Module, images: Batches, device: str | torch.device) -> int:
    """How many features the network, in evaluation mode, gives the first of some images.

    Raises:
        ValueError: there are none, or it does not give one vector an image.
    """
    first = next(iter(images), None)
    if first is None:
        raise ValueError("no test images: the loader gave none")
    features = network(first[0][:1].to(device))
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"The backbone gave {shape} for a batch of one: pool it to [batch, width].")
    return features.shape[1]
