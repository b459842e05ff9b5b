"""Softmax regression for many learning rates at once: one batch and one matrix product serve them all.

Shapes: n images, b batch, d feature width, c classes, r learning rates.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, one_hot

from ssl_eval.features import Features
from ssl_eval.processes import sum_over
from ssl_eval.schedule import BY_EPOCH, Schedule
from ssl_eval.scores import Scores, score

INITIAL_DEVIATION = 0.01
"""Of the initial weights, as in the linear evaluation of MoCo, SimSiam and DINO; biases start at 0."""


LARC_TRUST, LARC_EPSILON = 0.001, 1e-8
"""Of apex.parallel.LARC as facebookresearch/simsiam@a7bc177 main_lincls.py makes it."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How gradients move weights.

    Attributes:
        momentum: of SGD, without dampening.
        nesterov: whether it is Nesterov's.
        weight_decay: L2 on weights and biases.
        larc: whether each gradient is first multiplied by trust |w| / (|gradient| + decay |w| + epsilon), where neither
            norm is 0; weights and biases of each classifier for themselves (https://arxiv.org/abs/1708.03888).
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    larc: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearClassifiers:
    """One linear classifier per learning rate."""

    weight: Float[Tensor, "r c d"]
    bias: Float[Tensor, "r c"]

    @classmethod
    def start(
        cls, classifiers: int, num_classes: int, width: int, *, seed: int, device: str | torch.device
    ) -> "LinearClassifiers":
        """All with the same small random weights, and no bias."""
        first = torch.randn(num_classes, width, generator=stream(seed, "weights")) * INITIAL_DEVIATION
        return cls(
            weight=first.to(device).repeat(classifiers, 1, 1), bias=torch.zeros(classifiers, num_classes, device=device)
        )

    @classmethod
    def zeros_like(cls, other: "LinearClassifiers") -> "LinearClassifiers":
        """Of the same shapes, for velocities."""
        return cls(weight=torch.zeros_like(other.weight), bias=torch.zeros_like(other.bias))

    def logits(self, inputs: Float[Tensor, "b d"]) -> Float[Tensor, "b r c"]:
        """All classifiers' logits from one matrix product."""
        return linear(inputs, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)

    def tensors(self) -> list[Tensor]:
        """Both."""
        return [self.weight, self.bias]


def train_linear(
    data: Features,
    *,
    learning_rates: Sequence[float],
    num_classes: int,
    epochs: int,
    batch_size: int,
    descent: Descent,
    seed: int,
    prepare: Callable[[Tensor], Tensor],
    device: str | torch.device,
    schedule: Schedule = BY_EPOCH,
) -> LinearClassifiers:
    """Trains each classifier just as torch.optim.SGD would train it alone.

    All start from the same weights and see the same batches, which depend on the seed and the number of images only.

    Args:
        data: features and classes.
        learning_rates: one classifier for each.
        num_classes: c.
        epochs: passes over the data.
        batch_size: images per step; the last batch of an epoch may be smaller.
        descent: how gradients move weights.
        seed: of the initial weights and the order.
        prepare: applied to each batch of features, in float32.
        device: where to compute.
        schedule: of all learning rates.
    """
    model = LinearClassifiers.start(len(learning_rates), num_classes, data.features.shape[1], seed=seed, device=device)
    velocity = LinearClassifiers.zeros_like(model)
    peak_rates = torch.tensor(learning_rates, dtype=torch.float32, device=device)
    orders = stream(seed, "order")
    steps = -(-len(data) // batch_size)
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=orders).to(data.features.device)
        for step, rows in enumerate(order.split(batch_size)):
            rates = peak_rates * schedule.factor(epoch, epochs, step / steps)
            inputs = prepare(data.features[rows].to(device).float())
            descend(model, velocity, inputs, data.labels[rows].to(device), rates, descent)
    return model


@torch.no_grad()
def descend(
    model: LinearClassifiers,
    velocity: LinearClassifiers,
    inputs: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    rates: Float[Tensor, " r"],
    descent: Descent,
    group: dist.ProcessGroup | None = None,
) -> None:
    """One step of every classifier, in place, on the mean gradient over the images of all processes.

    v <- momentum v + g + decay w, then w <- w - rate v, or w - rate (g + decay w + momentum v) for Nesterov.
    """
    errors = model.logits(inputs).softmax(dim=2)
    errors -= one_hot(labels, errors.shape[2])[:, None]
    of_weight = (errors.flatten(1).T @ inputs).view_as(model.weight)
    count = errors.new_full((1,), len(labels))
    *of_bias, images = sum_over(group, torch.cat([errors.sum(dim=0).flatten(), count])).split([model.bias.numel(), 1])
    gradients = [sum_over(group, of_weight), of_bias[0].view_as(model.bias)]
    for weight, speed, gradient in zip(model.tensors(), velocity.tensors(), gradients, strict=True):
        each = (-1, *[1] * (weight.ndim - 1))
        gradient /= images
        if descent.weight_decay or descent.larc:
            gradient = _decayed(weight, gradient, descent).view_as(weight)
        speed.mul_(descent.momentum).add_(gradient)
        move = gradient.add(speed, alpha=descent.momentum) if descent.nesterov else speed
        weight.addcmul_(move, rates.view(each), value=-1.0)


def _decayed(weight: Float[Tensor, "r ..."], gradient: Float[Tensor, "r ..."], descent: Descent) -> Tensor:
    """The gradient with weight decay, and with LARC's factor for each classifier."""
    decayed = gradient.add(weight, alpha=descent.weight_decay)
    if not descent.larc:
        return decayed
    size, pull = (tensor.flatten(1).norm(dim=1) for tensor in (weight, gradient))
    trust = LARC_TRUST * size / (pull + descent.weight_decay * size + LARC_EPSILON)
    alive = (size != 0) & (pull != 0)
    adapted = decayed.flatten(1) * trust[:, None]
    return torch.where(alive[:, None], adapted, gradient.flatten(1))


def judge(
    model: LinearClassifiers, data: Features, *, prepare: Callable[[Tensor], Tensor], device: str | torch.device
) -> list[Scores]:
    """Accuracy of each classifier; images for which a classifier diverged count as wrong."""
    return score(
        _blocks(data, 8192),
        lambda features: model.logits(prepare(features.float())),
        num_classes=model.bias.shape[1],
        classifiers=len(model.bias),
        device=device,
    )


def stream(seed: int, purpose: str) -> torch.Generator:
    """An independent generator for each use of a seed."""
    digest = hashlib.blake2b(f"linear probe/{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _blocks(data: Features, size: int) -> Iterator[tuple[Float[Tensor, "b d"], Int[Tensor, " b"]]]:
    return zip(data.features.split(size), data.labels.split(size), strict=True)
