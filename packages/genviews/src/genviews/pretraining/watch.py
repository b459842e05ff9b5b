"""Whoever looks on at a training: nothing of it reaches the encoder.

Shapes: B images of this process, V = 1 or 2 global views that the exported backbone sees, D features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

import sslzoo
from genviews.pretraining.probe import OnlineProbe
from sslzoo import DistContext
from sslzoo.methods import Method

ROWS = 2048
"""So many features at most are looked at for the effective rank; a matrix of this side has its eigenvalues taken."""
COLLAPSED = {"std": 0.1, "feature_spread": 0.1, "information": 0.02, "effective_rank": 2.0}
"""Below these a representation has collapsed. A spread of 0.1, of the method's embeddings (std) or of the backbone's
features, is a mean cosine of 0.99 between different images. DINO's information is 0 where its prototypes tell nothing.
Batch norm hides a collapse from the features: small-simsiam on scenes, without its stop-gradient and its last norm,
comes to a std of 0.06 in 20 steps, while the features' spread stays at 0.66 and their rank sinks slowly, 30 to 18."""
LOOKS = 3
"""So many looks in a row must find it."""


class GlobalFeatures:
    """Keeps, detached, what the exported backbone makes of the global views."""

    def __init__(self, backbone: nn.Module) -> None:
        self._kept: list[Tensor] = []
        backbone.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._kept.append(output.detach())

    def take(self, images: int) -> Float[Tensor, "VB D"]:
        """Of the forward pass just done, view by view; local views and partners, which come later, are left out."""
        rows = torch.cat(self._kept)[: 2 * images].float()
        self._kept.clear()
        return rows


class Watch:
    """The features of each step, what a linear classifier makes of them, and how near they are to collapse.

    Args:
        method: the method.
        worker: this process.
        classes: of the labels; 0 for no classifier.

    Attributes:
        probe: the classifier, if there is one.
        features: of the last step.
    """

    features: Tensor

    def __init__(self, method: Method, worker: DistContext, classes: int) -> None:
        self.device, self._is_main = worker.device, worker.is_main
        self._tap = GlobalFeatures(method.backbone)
        self.probe = None
        if classes > 1:
            self.probe = OnlineProbe(int(method.backbone.num_features), classes).to(worker.device)  # pyright: ignore
        self._seen: list[tuple[Tensor, Tensor]] = []

    def see(self, labels: Int64[Tensor, " B"]) -> None:
        """After each forward pass."""
        features = self._tap.take(len(labels))
        self._seen.append((features, labels.repeat(len(features) // len(labels))))

    def learn(self) -> None:
        """After each step."""
        self.features, labels = (torch.cat(column) for column in zip(*self._seen, strict=True))
        self._seen.clear()
        if self.probe:
            self.probe.learn(self.features, labels)

    def summary(self) -> dict[str, float]:
        """Of the last step, and of the classifier since the last summary. All processes must call it."""
        told = {"probe": self.probe.accuracy()} if self.probe else {}
        if self._is_main:  # of its own features: in a collapse all processes' are alike
            told["feature_spread"] = float(sslzoo.embedding_std(self.features))
            told["effective_rank"] = float(sslzoo.effective_rank(self.features[:ROWS]))
        return told


class CollapseAlarm:
    """Says once that a representation has collapsed, and again if it had recovered."""

    def __init__(self) -> None:
        self._looks = 0

    def look(self, step: int, scalars: Mapping[str, float]) -> str | None:
        """One line for the user, at the third look in a row that finds a collapse."""
        signs = [f"{name} {scalars[name]:.3g}" for name, least in COLLAPSED.items() if scalars.get(name, least) < least]
        self._looks = self._looks + 1 if signs else 0
        if self._looks != LOOKS:
            return None
        return (
            f"collapse at step {step}: {', '.join(signs)}; try a lower --lr or a longer --warmup-epochs in a new --out"
        )
