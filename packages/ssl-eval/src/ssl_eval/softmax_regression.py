"""Softmax regression with many learning rates at once, sharing batches and matrix products.

Shapes: n images, b batch, d feature width, c classes, r learning rates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, one_hot

from genviews_core.distributed import all_reduce_sum
from ssl_eval.classification import Scores, score
from ssl_eval.features import Features
from ssl_eval.protocols import BY_EPOCH, Schedule, SGDConfig
from ssl_eval.rng import seeded_generator

INITIAL_DEVIATION = 0.01
"""Standard deviation of the initial weights, as in the linear evaluation of MoCo, SimSiam and DINO."""


LARC_TRUST, LARC_EPSILON = 0.001, 1e-8
"""Parameters of apex.parallel.LARC in facebookresearch/simsiam@a7bc177 main_lincls.py."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearClassifiers:
    """One linear classifier per learning rate."""

    weight: Float[Tensor, "r c d"]
    bias: Float[Tensor, "r c"]

    @classmethod
    def start(
        cls, classifiers: int, num_classes: int, width: int, *, seed: int, device: str | torch.device
    ) -> "LinearClassifiers":
        """Initialize all classifiers with the same small random weights and zero bias."""
        first = torch.randn(num_classes, width, generator=seeded_generator(seed, "weights")) * INITIAL_DEVIATION
        return cls(
            weight=first.to(device).repeat(classifiers, 1, 1), bias=torch.zeros(classifiers, num_classes, device=device)
        )

    @classmethod
    def zeros_like(cls, other: "LinearClassifiers") -> "LinearClassifiers":
        """Return zeros of the same shapes, for velocities."""
        return cls(weight=torch.zeros_like(other.weight), bias=torch.zeros_like(other.bias))

    def logits(self, inputs: Float[Tensor, "b d"]) -> Float[Tensor, "b r c"]:
        """Return the logits of all classifiers with one matrix product."""
        return linear(inputs, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)

    def tensors(self) -> list[Tensor]:
        """Return weight and bias."""
        return [self.weight, self.bias]


def train_linear(
    data: Features,
    *,
    learning_rates: Sequence[float],
    num_classes: int,
    epochs: int,
    batch_size: int,
    descent: SGDConfig,
    seed: int,
    prepare: Callable[[Tensor], Tensor],
    device: str | torch.device,
    schedule: Schedule = BY_EPOCH,
) -> LinearClassifiers:
    """Train each classifier exactly as torch.optim.SGD would train it alone.

    All start from the same weights and use the same batches, which depend only on the seed and the number of images.

    Args:
        data: features and labels.
        learning_rates: one per classifier.
        num_classes: number of classes c.
        epochs: number of epochs.
        batch_size: images per step; the last batch of an epoch may be smaller.
        descent: optimizer configuration.
        seed: seed of the initial weights and the order.
        prepare: applied to each batch of features, in float32.
        device: device of the computation.
        schedule: schedule of all learning rates.
    """
    model = LinearClassifiers.start(len(learning_rates), num_classes, data.features.shape[1], seed=seed, device=device)
    velocity = LinearClassifiers.zeros_like(model)
    peak_rates = torch.tensor(learning_rates, dtype=torch.float32, device=device)
    orders = seeded_generator(seed, "order")
    steps = -(-len(data) // batch_size)
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=orders).to(data.features.device)
        for step, rows in enumerate(order.split(batch_size)):
            rates = peak_rates * schedule.factor(epoch, epochs, step / steps)
            inputs = prepare(data.features[rows].to(device).float())
            sgd_step(model, velocity, inputs, data.labels[rows].to(device), rates, descent)
    return model


@torch.no_grad()
def sgd_step(
    model: LinearClassifiers,
    velocity: LinearClassifiers,
    inputs: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    rates: Float[Tensor, " r"],
    descent: SGDConfig,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Take one step of every classifier, in place, with the mean gradient over the images of all processes.

    v <- momentum v + g + decay w, then w <- w - rate v, or w - rate (g + decay w + momentum v) for Nesterov.
    """
    errors = model.logits(inputs).softmax(dim=2)
    errors -= one_hot(labels, errors.shape[2])[:, None]
    of_weight = (errors.flatten(1).T @ inputs).view_as(model.weight)
    count = errors.new_full((1,), len(labels))
    *of_bias, images = all_reduce_sum(torch.cat([errors.sum(dim=0).flatten(), count]), group).split(
        [model.bias.numel(), 1]
    )
    gradients = [all_reduce_sum(of_weight, group), of_bias[0].view_as(model.bias)]
    for weight, speed, gradient in zip(model.tensors(), velocity.tensors(), gradients, strict=True):
        each = (-1, *[1] * (weight.ndim - 1))
        gradient /= images
        if descent.weight_decay or descent.larc:
            gradient = _decayed(weight, gradient, descent).view_as(weight)
        speed.mul_(descent.momentum).add_(gradient)
        move = gradient.add(speed, alpha=descent.momentum) if descent.nesterov else speed
        weight.addcmul_(move, rates.view(each), value=-1.0)


def _decayed(weight: Float[Tensor, "r ..."], gradient: Float[Tensor, "r ..."], descent: SGDConfig) -> Tensor:
    """Return the gradient with weight decay, and with LARC's factor for each classifier."""
    decayed = gradient.add(weight, alpha=descent.weight_decay)
    if not descent.larc:
        return decayed
    size, pull = (tensor.flatten(1).norm(dim=1) for tensor in (weight, gradient))
    trust = LARC_TRUST * size / (pull + descent.weight_decay * size + LARC_EPSILON)
    alive = (size != 0) & (pull != 0)
    scale_protocol = decayed.flatten(1) * trust[:, None]
    return torch.where(alive[:, None], scale_protocol, gradient.flatten(1))


def evaluate(
    model: LinearClassifiers, data: Features, *, prepare: Callable[[Tensor], Tensor], device: str | torch.device
) -> list[Scores]:
    """Compute the accuracy of each classifier; non-finite logits count as wrong."""
    return score(
        _blocks(data, 8192),
        lambda features: model.logits(prepare(features.float())),
        num_classes=model.bias.shape[1],
        classifiers=len(model.bias),
        device=device,
    )


def _blocks(data: Features, size: int) -> Iterator[tuple[Float[Tensor, "b d"], Int[Tensor, " b"]]]:
    return zip(data.features.split(size), data.labels.split(size), strict=True)
