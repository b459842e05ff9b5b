"""SwAV: https://arxiv.org/abs/2006.09882.

Shapes: V views, A of them with an assignment, B samples, D projection dimensions, N queued samples, K prototypes.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sslzoo import losses
from sslzoo.distributed import gather, rank, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses.reduction import upcast
from sslzoo.methods.dino import assignment_statistics
from sslzoo.methods.method import Method, Weights, resolve_weights
from sslzoo.queue import Queue
from sslzoo.statistics import embedding_std


class SwAV(Method):
    """Views of any sizes, global ones first; each predicts the cluster assignments of the assigned views.

    Defaults: facebookresearch/swav@06b1b7c main_swav.py (parser) and src/resnet50.py. Epochs and iterations there are
    fractions of the training here. sslzoo.build_optimizer freezes the prototypes by dropping their gradient.

    Args:
        backbone: network with `.num_features`.
        prototypes: K.
        projection_dim: D.
        hidden_dim: hidden width of the projector.
        temperature: T.
        epsilon: weight of the entropy in Sinkhorn-Knopp.
        iterations: iterations of Sinkhorn-Knopp.
        assigned: indices of the views whose cluster assignment is predicted.
        queue_size: N, over all ranks: past samples that are clustered with the batch; 0: no queue.
        queue_start: fraction of the training after which the queue is filled (15 epochs of 100); used once full.
        freeze_fraction: fraction of the training at whose start the prototypes are frozen (one epoch of 100).
    """

    batch_coupled = "the equal use of clusters"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        prototypes: int = 3000,
        projection_dim: int = 128,
        hidden_dim: int = 2048,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        assigned: Sequence[int] = (0, 1),
        queue_size: int = 0,
        queue_start: float = 0.15,
        freeze_fraction: float = 0.01,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        self.encoder = Encoder(backbone, mlp([features, hidden_dim, projection_dim], bias=True, last_bias=True))
        self.prototypes = nn.Linear(projection_dim, prototypes, bias=False)
        self.queues = nn.ModuleList(Queue(queue_size, projection_dim) for _ in assigned if queue_size)
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.assigned = tuple(assigned)
        self.queue_size = queue_size
        self.queue_start = queue_start
        self.freeze_fraction = freeze_fraction
        self.queued = 0
        self.new_embeddings: list[Tensor] = []
        self.normalize_prototypes()

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its projector."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the cross-entropy of the swapped prediction.

        Also `std` (embedding_std: near 1 if healthy, 0 if collapsed), and `entropy` and `information` of the
        predictions for the assigned views, in nats.
        """
        embeddings, weights = self._encode(views, weights)
        assigned = embeddings[list(self.assigned)].detach()
        if self.training and self.queues and self.progress >= self.queue_start:
            self.new_embeddings.append(assigned)
        scores = self._scores(embeddings)
        loss = losses.swav(
            scores,
            assigned=self.assigned,
            queued=self._queued_scores(),
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            weights=weights,
        )
        predicted = torch.softmax(scores[list(self.assigned)].detach() / self.temperature, dim=-1)
        return {"loss": loss, "std": embedding_std(assigned[0]), **assignment_statistics(predicted)}

    def after_step(self, progress: float) -> None:
        """Normalize the prototypes, and enqueue the embeddings of all ranks of this step."""
        super().after_step(progress)
        self.normalize_prototypes()
        for embeddings in self.new_embeddings:
            for queue, view in zip(self.queues, embeddings, strict=True):
                queue.enqueue(gather(view))  # pyright: ignore[reportCallIssue]
            self.queued += embeddings.shape[1] * world_size()
        self.new_embeddings.clear()

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Return the prototypes during the first `freeze_fraction` of the training."""
        return self.prototypes.parameters() if self.progress < self.freeze_fraction else ()

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Normalize each prototype; needed only after changing them by hand, otherwise after_step does it."""
        self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight, dim=1))

    def _encode(
        self, views: Sequence[Tensor], weights: Weights
    ) -> tuple[Float[Tensor, "V B D"], Float[Tensor, "B"] | None]:
        """Return normalized embeddings, and the weights, computed when the backbone has seen only the global views.

        Consecutive views of one size go through the backbone together, and all through the head together, so that
        batch norm statistics are those of src/resnet50.py.
        """
        if len(views) < 2 or len(views) <= max(self.assigned):
            raise ValueError(
                f"expected at least 2 views and those with assignments, {self.assigned}, for SwAV, got {len(views)}"
            )
        first, *rest = [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape)]
        features = [self.encoder.backbone(first)]
        weights = resolve_weights(weights)
        features += [self.encoder.backbone(group) for group in rest]
        embeddings = self.encoder.head(torch.cat(features)).unflatten(0, (len(views), -1))
        return functional.normalize(upcast(embeddings), dim=-1), weights

    def _scores(self, embeddings: Float[Tensor, "*views D"]) -> Float[Tensor, "*views K"]:
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.prototypes(embeddings)

    @torch.no_grad()
    def _queued_scores(self) -> Float[Tensor, "A N K"] | None:
        """Return the scores of this rank's part of the queue once it is full."""
        if not self.queues or self.queued < self.queue_size:
            return None
        return self._scores(torch.stack([queue.keys[rank() :: world_size()] for queue in self.queues]))  # pyright: ignore

    def get_extra_state(self) -> dict[str, float]:
        """Part of state_dict()."""
        return {**super().get_extra_state(), "queued": self.queued}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Part of load_state_dict()."""
        super().set_extra_state(state)
        self.queued = int(state["queued"])
