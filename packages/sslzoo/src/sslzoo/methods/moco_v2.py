"""MoCo v2: https://arxiv.org/abs/2003.04297.

Shapes: B samples, D projection dimensions, H x W pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sslzoo.gather import gather, world_size
from sslzoo.heads import Encoder, moco_head
from sslzoo.losses import info_nce
from sslzoo.losses.reduction import precise
from sslzoo.methods.method import Method, Weights, resolved, spread, two_views
from sslzoo.methods.shuffle import shuffled_apply
from sslzoo.momentum import follow, momentum_copy
from sslzoo.queue import Queue


class MoCoV2(Method):
    """views[0] is the query, views[1] the key; negatives come from a queue of past keys.

    Defaults: facebookresearch/moco@132aea9 main_moco.py and its README's v2 options.

    Args:
        backbone: with `.num_features`.
        projection_dim: D.
        hidden_dim: of the head; None: as wide as the features.
        queue_size: how many past keys.
        momentum: of the key encoder.
        temperature: T.
        symmetric: each view is query and key once; the loss is the mean of both.
        shuffle: shuffle keys across ranks. For batch norm that each rank keeps for itself; not needed when batch norm
            is synchronised, and without effect in one process.
        seed: of the shuffling.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projection_dim: int = 128,
        hidden_dim: int | None = None,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        shuffle: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        self.query = Encoder(backbone, moco_head(features, hidden_dim or features, projection_dim))
        self.key = momentum_copy(self.query)
        self.queue = Queue(queue_size, projection_dim)
        self.momentum = momentum
        self.temperature = temperature
        self.symmetric = symmetric
        self.shuffle = shuffle
        self.seed = seed
        self.shuffles = 0
        self.new_keys: list[Tensor] = []

    @property
    def backbone(self) -> nn.Module:
        """The query encoder's, as the official main_lincls.py takes it."""
        return self.query.backbone

    @property
    def pair_backbones(self) -> tuple[nn.Module, nn.Module]:
        """Query and key network; the query network alone where it sees both views."""
        if self.symmetric:
            return self.query.backbone, self.query.backbone
        if self.shuffle and world_size() > 1:
            raise ValueError("MoCo's key network sees images of other ranks: use shuffle=False or symmetric=True.")
        return self.query.backbone, self.key.backbone

    def forward(self, views: Sequence[Float[Tensor, "B 3 _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """InfoNCE; `std`: 1 for a healthy spread, 0 for collapse; `similarity`: mean cosine with the positive."""
        first, second = two_views(views, "MoCo v2")
        pairs = [(first, second), (second, first)] if self.symmetric else [(first, second)]
        queries, keys = [], []
        for query_view, key_view in pairs:
            queries.append(functional.normalize(precise(self.query(query_view)), dim=1))
            keys.append(self._keys(key_view))
        weights = resolved(weights)
        losses = [self._loss(query, key, weights) for query, key in zip(queries, keys, strict=True)]
        if self.training:
            self.new_keys += keys
        similarity = (queries[0].detach() * keys[0]).sum(1).mean()
        return {"loss": sum(losses[1:], losses[0]) / len(losses), "std": spread(queries[0]), "similarity": similarity}

    def after_step(self, progress: float) -> None:
        """The key encoder follows; the keys of this step, of all ranks, enter the queue."""
        super().after_step(progress)
        follow(self.key, self.query, self.momentum)
        for keys in self.new_keys:
            self.queue.enqueue(gather(keys))
        self.new_keys.clear()

    def _loss(self, query: Tensor, key: Tensor, weights: Tensor | None) -> Tensor:
        return info_nce(query, key, self.queue.keys, temperature=self.temperature, weights=weights)

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        if self.shuffle and self.training and world_size() > 1:
            self.shuffles += 1
            return functional.normalize(precise(shuffled_apply(self.key, view, self.seed, self.shuffles)), dim=1)
        return functional.normalize(precise(self.key(view)), dim=1)

    def get_extra_state(self) -> dict[str, float]:
        """Part of state_dict()."""
        return {**super().get_extra_state(), "shuffles": self.shuffles}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Part of load_state_dict()."""
        super().set_extra_state(state)
        self.shuffles = int(state["shuffles"])
