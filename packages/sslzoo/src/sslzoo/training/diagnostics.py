"""Training diagnostics: features, online probe, collapse and non-finite values. No gradient reaches the encoder.

Shapes: B images of this process, V = 1 or 2 global views that the exported backbone sees, N = V B, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from genviews_core.distributed import all_reduce_sum, default_group, world_size
from sslzoo.distributed import DistContext, all_reduce_min
from sslzoo.methods import Method
from sslzoo.statistics import effective_rank, embedding_std

RANK_SAMPLES = 2048
"""Maximum number of samples for the effective rank, whose cost is cubic."""
COLLAPSED = {"std": 0.1, "feature_spread": 0.1, "information": 0.02, "effective_rank": 2.0}
"""Metrics below these values indicate collapse. A normalized standard deviation of 0.1, of the method's embeddings
(std) or of the backbone's features (feature_spread), is a mean cosine of 0.99 between different images. DINO's
information is 0 if the prototypes carry none. Batch norm hides a collapse from the features: small-simsiam on scenes,
without its stop-gradient and its last norm, reaches a std of 0.06 in 20 steps, while the features' standard deviation
stays at 0.66 and their rank falls slowly, from 30 to 18."""
COLLAPSE_CHECKS = 3
"""Consecutive checks that must indicate collapse."""
PROBE_LR = 0.1
"""classifier_lr of vturrisi/solo-learn scripts/pretrain/cifar/{dino,simsiam}.yaml, where it decreases by a cosine."""


class BackboneFeatureHook:
    """Keep the detached features of the global views from the exported backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        self._features: list[Tensor] = []
        backbone.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._features.append(output.detach())

    def pop(self, images: int) -> Float[Tensor, "N D"]:
        """Return the features of the last forward pass, view by view, without those of later, local views."""
        rows = torch.cat(self._features)[: 2 * images].float()
        self._features.clear()
        return rows


class OnlineProbe(nn.Module):
    """Softmax regression on the detached features of the training views, as the online classifier of solo-learn.

    It is initialized with zeros, so that it draws no random numbers, and trained by SGD with momentum 0.9 on the
    features of all processes. Its accuracy is measured on augmented training views before each update.

    Args:
        features: D.
        classes: number of classes.
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

    def step(self, features: Float[Tensor, "N D"], labels: Int64[Tensor, " N"]) -> None:
        """Count correct predictions and update the weights; labels of -1 are ignored."""
        labelled = (labels >= 0).sum()
        logits = self.linear(features)
        with torch.no_grad():
            self.right += (logits.argmax(1) == labels).sum()
            self.seen += labelled
        loss = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / labelled.clamp(min=1)
        self._update(torch.autograd.grad(loss, list(self.linear.parameters())))

    @torch.no_grad()
    def _update(self, gradients: tuple[Tensor, ...]) -> None:
        group = default_group()
        for name, parameter, gradient in zip(self._velocity, self.linear.parameters(), gradients, strict=True):
            mean = all_reduce_sum(gradient, group) / world_size(group)
            velocity = getattr(self, name).mul_(0.9).add_(mean)
            parameter.sub_(velocity, alpha=PROBE_LR)

    def pop_accuracy(self) -> float:
        """Return the top-1 accuracy in percent over all processes since the last call; 0 without labels."""
        counts = all_reduce_sum(torch.stack([self.right, self.seen]), default_group())
        self.right.zero_()
        self.seen.zero_()
        right, seen = counts.tolist()
        return 100 * right / max(seen, 1)


class TrainingMonitor:
    """The features of each step, their statistics, and an online probe on them.

    Args:
        method: the method; the hook is registered on its exported backbone.
        context: rank and device of this process.
        num_classes: classes of the probe; below 2: no probe.

    Attributes:
        probe: the probe, if there is one.
        features: features of the last step.
    """

    features: Tensor

    def __init__(self, method: Method, context: DistContext, num_classes: int = 0) -> None:
        self._is_main, self._device = context.is_main, context.device
        self._hook = BackboneFeatureHook(method.backbone)
        self.probe = None
        if num_classes > 1:
            self.probe = OnlineProbe(int(method.backbone.num_features), num_classes)  # pyright: ignore
            self.probe.to(context.device)
        self._batches: list[tuple[Tensor, Tensor]] = []

    def update(self, images: int, labels: Int64[Tensor, " B"] | None = None) -> None:
        """Keep the features of a forward pass."""
        features = self._hook.pop(images)
        if labels is None:
            labels = torch.full((images,), -1, device=self._device)
        self._batches.append((features, labels.repeat(len(features) // images)))

    def step(self) -> None:
        """Finish a step: update the probe with the features of all its forward passes."""
        self.features, labels = (torch.cat(column) for column in zip(*self._batches, strict=True))
        self._batches.clear()
        if self.probe:
            self.probe.step(self.features, labels)

    def summary(self) -> dict[str, float]:
        """Return metrics of the last step, and the accuracy of the probe since the last call; call on all processes."""
        metrics = {"probe": self.probe.pop_accuracy()} if self.probe else {}
        if self._is_main:  # of its own features: a collapse affects all processes
            metrics["feature_spread"] = float(embedding_std(self.features))
            metrics["effective_rank"] = float(effective_rank(self.features[:RANK_SAMPLES]))
        return metrics


class CollapseDetector:
    """Report a collapse once, and again after a recovery."""

    def __init__(self) -> None:
        self._checks = 0

    def check(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Return a message at the third consecutive check that indicates collapse."""
        signs = [f"{name} {metrics[name]:.3g}" for name, least in COLLAPSED.items() if metrics.get(name, least) < least]
        self._checks = self._checks + 1 if signs else 0
        if self._checks != COLLAPSE_CHECKS:
            return None
        return (
            f"collapse at step {step}: {', '.join(signs)}; try a lower learning rate or a longer warm-up, in a new run"
        )


class NonFiniteMonitor:
    """Keep the first step with a non-finite loss on the device, and share it with all processes.

    Args:
        context: rank and device of this process.
    """

    def __init__(self, context: DistContext) -> None:
        self._first = torch.full((), math.inf, device=context.device)

    def update(self, loss: Tensor, step: int) -> None:
        """Check the loss of a step without synchronizing the device."""
        self._first = torch.where(loss.isfinite(), self._first, self._first.clamp(max=step))

    def mark(self, step: int) -> None:
        """Mark a step as non-finite."""
        self._first.clamp_(max=step)

    @property
    def is_finite(self) -> bool:
        """Whether all losses of this process were finite."""
        return math.isinf(float(self._first))

    def check(self, signal: int) -> tuple[float, int]:
        """Return the first non-finite step (or infinity) and the largest signal number of all processes."""
        values = torch.stack([self._first, torch.tensor(-float(signal), device=self._first.device)])
        first, negative_signal = all_reduce_min(values).tolist()
        return first, int(-negative_signal)
