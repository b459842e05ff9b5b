"""MoCo v3: https://arxiv.org/abs/2104.02057.

Shapes: B samples per rank, D projection dimensions, H x W pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sslzoo.distributed import gather, rank
from sslzoo.ema import ema_copy, ema_update
from sslzoo.heads import Encoder, mlp
from sslzoo.losses.reduction import upcast, weighted_mean
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.schedules import cosine
from sslzoo.statistics import embedding_std


class MoCoV3(Method):
    """Each view's prediction finds, among the keys of all ranks' samples, the key of the other view; no queue.

    Defaults: facebookresearch/moco-v3@c349e6e main_moco.py and moco/builder.py for ResNets, with the momentum schedule
    (`--moco-m-cos`) of every command in CONFIG.md. For vision transformers there: `projector_layers=3`,
    `predictor_norm=True`, `temperature=0.2`.

    Args:
        backbone: network with `.num_features`.
        projection_dim: D.
        hidden_dim: hidden width of projector and predictor.
        projector_layers: linear layers of the projector; the predictor has two.
        predictor_norm: whether a batch norm without scale and shift follows the predictor, as it follows the projector.
        temperature: T.
        momentum: momentum of the key encoder at the start.
        final_momentum: momentum at the end of a cosine schedule.
    """

    batch_coupled = "negatives"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projection_dim: int = 256,
        hidden_dim: int = 4096,
        projector_layers: int = 2,
        predictor_norm: bool = False,
        temperature: float = 1.0,
        momentum: float = 0.99,
        final_momentum: float = 1.0,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        widths = [features, *[hidden_dim] * (projector_layers - 1), projection_dim]
        self.query = Encoder(backbone, mlp(widths, bias=False, last_bias=False, last_norm="plain"))
        self.predictor = mlp(
            [projection_dim, hidden_dim, projection_dim],
            bias=False,
            last_bias=False,
            last_norm="plain" if predictor_norm else "none",
        )
        self.key = ema_copy(self.query)
        self.temperature = temperature
        self.momenta = (momentum, final_momentum)

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the query encoder, which the official main_lincls.py evaluates."""
        return self.query.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the sum of both directions.

        Also `std` (embedding_std: near 1 if healthy, 0 if collapsed) of the queries, and
        `similarity`: mean cosine of query and key.
        """
        first, second = two_views(views, "MoCo v3")
        queries = [_unit(self.predictor(self.query(view))) for view in (first, second)]
        with torch.no_grad():
            keys = [_unit(self.key(view)) for view in (second, first)]
        weights = resolve_weights(weights)
        losses = [self._contrast(query, key, weights) for query, key in zip(queries, keys, strict=True)]
        similarity = (queries[0].detach() * keys[0]).sum(1).mean()
        return {"loss": losses[0] + losses[1], "std": embedding_std(queries[0].detach()), "similarity": similarity}

    def after_step(self, progress: float) -> None:
        """Update the key encoder, with the momentum of the next step, at whose start the official code updates it."""
        super().after_step(progress)
        ema_update(self.key, self.query, cosine(progress, *self.momenta))

    def _contrast(
        self, query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], weights: Float[Tensor, "B"] | None
    ) -> Float[Tensor, ""]:
        """Return 2T times InfoNCE with the keys of all ranks as negatives: builder.py contrastive_loss."""
        with torch.autocast(query.device.type, enabled=False):
            logits = query @ gather(key).T / self.temperature
            labels = torch.arange(len(query), device=query.device) + len(query) * rank()
            terms = functional.cross_entropy(logits, labels, reduction="none")
            return 2 * self.temperature * weighted_mean(terms, weights)


def _unit(vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    return functional.normalize(upcast(vectors), dim=1)
