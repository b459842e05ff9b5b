"""BYOL: https://arxiv.org/abs/2006.07733.

Shapes: B samples, D projection dimensions, H x W pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sslzoo.ema import ema_copy, ema_update
from sslzoo.heads import Encoder, mlp
from sslzoo.losses.reduction import upcast, weighted_mean
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.schedules import cosine
from sslzoo.statistics import embedding_std


class BYOL(Method):
    """The online network predicts the output of the target network, its EMA, for the other view.

    Defaults: google-deepmind/deepmind-research@f5de0ed byol/configs/byol.py, preset for 1000 epochs; it starts the
    momentum at 0.99 for 100 and 300 epochs. The target starts as a copy of the online network; there it starts with
    random weights of its own, "no significant difference" (byol_experiment.py).

    Args:
        backbone: network with `.num_features`.
        projection_dim: D.
        hidden_dim: hidden width of projector and predictor.
        momentum: momentum of the target network at the start.
        final_momentum: momentum at the end of a cosine schedule.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 4096,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        self.online = Encoder(backbone, mlp([features, hidden_dim, projection_dim], bias=True, last_bias=False))
        self.predictor = mlp([projection_dim, hidden_dim, projection_dim], bias=True, last_bias=False)
        self.target = ema_copy(self.online)
        self.momenta = (momentum, final_momentum)

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the online network, which the official eval_experiment.py evaluates."""
        return self.online.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the sum of both directions, and `std` (embedding_std: near 1 if healthy, 0 if collapsed)."""
        first, second = two_views(views, "BYOL")
        projections = self.online(first), self.online(second)
        with torch.no_grad():
            targets = self.target(second), self.target(first)
        weights = resolve_weights(weights)
        losses = [
            squared_distance(self.predictor(projection), target, weights)
            for projection, target in zip(projections, targets, strict=True)
        ]
        return {"loss": losses[0] + losses[1], "std": embedding_std(projections[0])}

    def after_step(self, progress: float) -> None:
        """Update the target network, with the momentum of the step just done."""
        ema_update(self.target, self.online, cosine(self.progress, *self.momenta))
        super().after_step(progress)


def squared_distance(
    prediction: Float[Tensor, "B D"], target: Float[Tensor, "B D"], weights: Float[Tensor, "B"] | None = None
) -> Float[Tensor, ""]:
    """|q/|q| - z/|z||^2 = 2 - 2 cos(q, z), eq. 2; in float32 or higher, also under autocast."""
    return weighted_mean(2 - 2 * functional.cosine_similarity(upcast(prediction), upcast(target), dim=1), weights)
