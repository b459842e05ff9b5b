"""Softmax regression by SGD for many learning rates at once: one batch and one matrix product serve them all.

Shapes: n images, b batch, d feature width, c classes, r learning rates.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from ssl_eval.features import Features

INITIAL_DEVIATION = 0.01
"""Of the initial weights, as in the linear evaluation of MoCo, SimSiam and DINO; biases start at 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearClassifiers:
    """One linear classifier per learning rate."""

    weight: Float[Tensor, "r c d"]
    bias: Float[Tensor, "r c"]

    def logits(self, inputs: Float[Tensor, "b d"]) -> Float[Tensor, "b r c"]:
        """All classifiers' logits from one matrix product."""
        return linear(inputs, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)


def train_linear(
    data: Features,
    *,
    learning_rates: Sequence[float],
    num_classes: int,
    epochs: int,
    batch_size: int,
    weight_decay: float,
    momentum: float,
    seed: int,
    prepare: Callable[[Tensor], Tensor],
    device: str | torch.device,
) -> LinearClassifiers:
    """Trains each classifier just as torch.optim.SGD and CosineAnnealingLR (one step per epoch) would train it alone.

    All start from the same weights and see the same batches, which depend on the seed and the number of images only.

    Args:
        data: features and classes.
        learning_rates: one classifier for each.
        num_classes: c.
        epochs: passes over the data.
        batch_size: images per step; the last batch of an epoch may be smaller.
        weight_decay: L2 on weights and biases.
        momentum: of SGD, without dampening or Nesterov.
        seed: of the initial weights and the order.
        prepare: applied to each batch of features, in float32.
        device: where to compute.
    """
    shape = (num_classes, data.features.shape[1])
    start = torch.randn(shape, generator=stream(seed, "weights")) * INITIAL_DEVIATION
    weight = start.to(device).repeat(len(learning_rates), 1, 1)
    bias = torch.zeros(len(learning_rates), num_classes, device=device)
    model = LinearClassifiers(weight=weight, bias=bias)
    velocity = LinearClassifiers(weight=torch.zeros_like(weight), bias=torch.zeros_like(bias))
    peak_rates = torch.tensor(learning_rates, dtype=torch.float32, device=device)
    orders = stream(seed, "order")
    for epoch in range(epochs):
        rates = peak_rates * (0.5 + 0.5 * math.cos(math.pi * epoch / epochs))
        for rows in torch.randperm(len(data), generator=orders).to(data.features.device).split(batch_size):
            inputs = prepare(data.features[rows].to(device).float())
            _sgd_step(model, velocity, inputs, data.labels[rows].to(device), rates, weight_decay, momentum)
    return model


def accuracies(
    model: LinearClassifiers, data: Features, *, prepare: Callable[[Tensor], Tensor], device: str | torch.device
) -> list[float]:
    """Top-1 accuracy of each classifier, percent; images for which a classifier diverged count as wrong."""
    correct = torch.zeros(model.bias.shape[0], dtype=torch.long, device=device)
    for features, labels in _blocks(data, 8192):
        logits = model.logits(prepare(features.to(device).float()))
        right = logits.argmax(dim=2) == labels.to(device)[:, None]
        correct += (right & logits.isfinite().all(dim=2)).sum(dim=0)
    return [100.0 * count / len(data) for count in correct.tolist()]


def stream(seed: int, purpose: str) -> torch.Generator:
    """An independent generator for each use of a seed."""
    digest = hashlib.blake2b(f"linear probe/{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _blocks(data: Features, size: int) -> Iterator[tuple[Float[Tensor, "b d"], Int[Tensor, " b"]]]:
    return zip(data.features.split(size), data.labels.split(size), strict=True)


@torch.no_grad()
def _sgd_step(
    model: LinearClassifiers,
    velocity: LinearClassifiers,
    inputs: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    rates: Float[Tensor, " r"],
    weight_decay: float,
    momentum: float,
) -> None:
    """In place: v <- momentum * v + gradient + weight_decay * w;  w <- w - rate * v."""
    errors = model.logits(inputs).softmax(dim=2)
    errors[torch.arange(len(labels), device=labels.device), :, labels] -= 1.0
    errors /= len(labels)
    weight_gradient = (errors.flatten(1).T @ inputs).view_as(model.weight)
    velocity.weight.mul_(momentum).add_(weight_gradient).add_(model.weight, alpha=weight_decay)
    velocity.bias.mul_(momentum).add_(errors.sum(dim=0)).add_(model.bias, alpha=weight_decay)
    model.weight.addcmul_(velocity.weight, rates[:, None, None], value=-1.0)
    model.bias.addcmul_(velocity.bias, rates[:, None], value=-1.0)
