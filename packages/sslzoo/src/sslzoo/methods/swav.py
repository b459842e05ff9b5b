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
from sslzoo.gather import gather, rank, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses.reduction import precise
from sslzoo.methods.dino import assignment_statistics
from sslzoo.methods.method import Method, Weights, resolved, spread
from sslzoo.queue import Queue


class SwAV(Method):
    """Views of any sizes, the global ones first; each predicts the clusters of the assigned ones.

    Defaults: facebookresearch/swav@06b1b7c main_swav.py (parser) and src/resnet50.py. What is there counted in epochs
    or iterations is here a share of the training. The prototypes are frozen by sslzoo.build_optimizer, which drops
    their gradient.

    Args:
        backbone: with `.num_features`.
        prototypes: K.
        projection_dim: D.
        hidden_dim: of the projector.
        temperature: T.
        epsilon: of Sinkhorn-Knopp.
        iterations: of Sinkhorn-Knopp.
        assigned: which views have their cluster computed.
        queue_size: N, over all ranks: past samples that share the clusters with a small batch; 0 for none.
        queue_start: share of the training after which the queue fills (15 epochs of 100); used once full.
        frozen_share: share of the training for which the prototypes stay as they are (one epoch of 100).
    """

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
        frozen_share: float = 0.01,
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
        self.frozen_share = frozen_share
        self.queued = 0
        self.new_embeddings: list[Tensor] = []
        self.normalise_prototypes()

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its projector."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B 3 _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """The swapped prediction's cross-entropy.

        `std`: 1 for a healthy spread of the embeddings, 0 for collapse; `entropy` and `information` of the assigned
        views' predictions, in nats.
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
        return {"loss": loss, "std": spread(assigned[0]), **assignment_statistics(predicted)}

    def after_step(self, progress: float) -> None:
        """The prototypes return to length 1; this step's embeddings, of all ranks, enter the queue."""
        super().after_step(progress)
        self.normalise_prototypes()
        for embeddings in self.new_embeddings:
            for queue, view in zip(self.queues, embeddings, strict=True):
                queue.enqueue(gather(view))  # pyright: ignore[reportCallIssue]
            self.queued += embeddings.shape[1] * world_size()
        self.new_embeddings.clear()

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """The prototypes, in the first part of the training."""
        return self.prototypes.parameters() if self.progress < self.frozen_share else ()

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        """Each to length 1; for whoever changes them by hand, after_step does it else."""
        self.prototypes.weight.copy_(functional.normalize(self.prototypes.weight, dim=1))

    def _encode(
        self, views: Sequence[Tensor], weights: Weights
    ) -> tuple[Float[Tensor, "V B D"], Float[Tensor, "B"] | None]:
        """Unit embeddings, and the weights, asked for when the backbone has seen the global views alone.

        Neighbouring views of one size go through the backbone together, and all through the head together, so that
        batch norm sees what it sees in src/resnet50.py.
        """
        if len(views) < 2 or len(views) <= max(self.assigned):
            raise ValueError(f"SwAV takes two views at least and those it assigns, {self.assigned}; got {len(views)}.")
        first, *rest = [torch.cat(list(group)) for _, group in groupby(views, key=lambda view: view.shape)]
        features = [self.encoder.backbone(first)]
        weights = resolved(weights)
        features += [self.encoder.backbone(group) for group in rest]
        embeddings = self.encoder.head(torch.cat(features)).unflatten(0, (len(views), -1))
        return functional.normalize(precise(embeddings), dim=-1), weights

    def _scores(self, embeddings: Float[Tensor, "*views D"]) -> Float[Tensor, "*views K"]:
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.prototypes(embeddings)

    @torch.no_grad()
    def _queued_scores(self) -> Float[Tensor, "A N K"] | None:
        """Of this rank's part of the queue, once it is full."""
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
