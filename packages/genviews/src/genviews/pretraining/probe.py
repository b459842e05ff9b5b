"""A linear classifier that learns beside the encoder.

Shapes: N features of this process, D their width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, distributed, nn
from torch.nn import functional

LEARNING_RATE = 0.1
"""classifier_lr of vturrisi/solo-learn scripts/pretrain/cifar/{dino,simsiam}.yaml; there it falls by a cosine."""


class OnlineProbe(nn.Module):
    """Softmax regression on the detached features of the training views, as solo-learn's on-line classifier.

    It starts at zero, so that it draws no random number, and learns by SGD with momentum 0.9, all processes together.
    Its accuracy is that on augmented training views, each before it is learned from: a sign of life, not a result.

    Args:
        features: D.
        classes: how many.
    """

    right: Tensor
    seen: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        for name in ("right", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))
        self._velocity = [f"velocity_of_{name}" for name, _ in self.linear.named_parameters()]
        for name, parameter in zip(self._velocity, self.linear.parameters(), strict=True):
            self.register_buffer(name, torch.zeros_like(parameter))

    def learn(self, features: Float[Tensor, "N D"], labels: Int64[Tensor, " N"]) -> None:
        """One step; labels of -1 are no labels."""
        labelled = (labels >= 0).sum()
        logits = self.linear(features)
        with torch.no_grad():
            self.right += (logits.argmax(1) == labels).sum()
            self.seen += labelled
        loss = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / labelled.clamp(min=1)
        gradients = torch.autograd.grad(loss, list(self.linear.parameters()))
        self._descend(gradients)

    @torch.no_grad()
    def _descend(self, gradients: tuple[Tensor, ...]) -> None:
        for name, parameter, gradient in zip(self._velocity, self.linear.parameters(), gradients, strict=True):
            if distributed.is_initialized():
                distributed.all_reduce(gradient)
                gradient = gradient / distributed.get_world_size()
            velocity = getattr(self, name).mul_(0.9).add_(gradient)
            parameter.sub_(velocity, alpha=LEARNING_RATE)

    def accuracy(self) -> float:
        """Top-1 in percent over all processes since this was asked last; 0 where nothing had a label."""
        counts = torch.stack([self.right, self.seen])
        if distributed.is_initialized():
            distributed.all_reduce(counts)
        self.right.zero_()
        self.seen.zero_()
        right, seen = counts.tolist()
        return 100 * right / max(seen, 1)
