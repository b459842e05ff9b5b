"""MoCo v2: https://arxiv.org/abs/2003.04297.

Shapes: W ranks, B samples per rank, D projection dimensions, H x W pixels.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from sslzoo.batch_norm import average_running_statistics, split_batch_norm
from sslzoo.distributed import gather, rank, world_size
from sslzoo.ema import ema_copy, ema_update
from sslzoo.heads import Encoder, moco_head
from sslzoo.losses import info_nce
from sslzoo.losses.reduction import upcast
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.queue import Queue
from sslzoo.statistics import embedding_std


class MoCoV2(Method):
    """views[0] is the query, views[1] the key; negatives come from a queue of past keys.

    Defaults: facebookresearch/moco@132aea9 main_moco.py and its README's v2 options.

    If query and key share batch norm statistics, the network can match them without looking at the images. So every
    rank has its own batch norm, and keys are shuffled over ranks before the key encoder and unshuffled after it
    (https://arxiv.org/abs/1911.05722 section 3.3). Synchronized batch norm does not help: the queue holds keys of other
    batches, so the statistics still reveal which key is from this one (facebookresearch/moco issue 46). In a single
    process the batch is split instead; on CIFAR-10, training without it "loses 4% at 800 epochs"
    (facebookresearch/moco@f736491 colab/moco_cifar10_demo.ipynb).

    Args:
        backbone: network with `.num_features`; its batch norms are replaced if `splits` > 1.
        projection_dim: D.
        hidden_dim: hidden width of the head; None: number of features.
        queue_size: number of past keys.
        momentum: momentum of the key encoder.
        temperature: T.
        symmetric: use each view as query and as key; the loss is the mean of both.
        splits: number of parts of the global batch with separate batch norm statistics, for runs with fewer ranks (8
            simulates the 8 GPUs of the official runs); 1: one part per rank.
        shuffle: whether keys are shuffled over ranks and splits.
        seed: seed of the shuffling.

    Raises:
        ValueError: `splits` is less than 1.
    """

    batch_norm_per_rank = True

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
        splits: int = 1,
        shuffle: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if splits < 1:
            raise ValueError(f"expected splits of 1 or more, got {splits}; give 1 for one batch norm a rank")
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        if splits > 1:
            backbone = split_batch_norm(backbone, splits)
        self.query = Encoder(backbone, moco_head(features, hidden_dim or features, projection_dim))
        self.key = ema_copy(self.query)
        self.queue = Queue(queue_size, projection_dim)
        self.momentum = momentum
        self.temperature = temperature
        self.symmetric = symmetric
        self.splits = splits
        self.shuffle = shuffle
        self.seed = seed
        self.shuffles = 0
        self._order: Tensor | None = None
        self.new_keys: list[Tensor] = []

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the query encoder, which the official main_lincls.py evaluates."""
        return self.query.backbone

    @property
    def pair_backbones(self) -> tuple[nn.Module, nn.Module]:
        """Query and key network; the query network alone where it sees both views."""
        return self.query.backbone, self.query.backbone if self.symmetric else self.key.backbone

    def in_order(self, rows: Tensor) -> Tensor:
        """Gather shuffled key outputs, and return those of this rank's images in order."""
        return rows if self.symmetric or self._order is None else unshuffle(rows, self._order)

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return InfoNCE and metrics.

        `std` (embedding_std: near 1 if healthy, 0 if collapsed); `similarity`: mean cosine with the positive.
        """
        first, second = two_views(views, "MoCo v2")
        pairs = [(first, second), (second, first)] if self.symmetric else [(first, second)]
        queries, keys = [], []
        for query_view, key_view in pairs:
            queries.append(functional.normalize(upcast(self.query(query_view)), dim=1))
            keys.append(self._keys(key_view))
        weights = resolve_weights(weights)
        losses = [self._loss(query, key, weights) for query, key in zip(queries, keys, strict=True)]
        if self.training:
            self.new_keys += keys
        similarity = (queries[0].detach() * keys[0]).sum(1).mean()
        return {
            "loss": sum(losses[1:], losses[0]) / len(losses),
            "std": embedding_std(queries[0]),
            "similarity": similarity,
        }

    def after_step(self, progress: float) -> None:
        """Update the key encoder and enqueue the keys of all ranks of this step.

        Running statistics are averaged over ranks, as SplitBatchNorm averages them over splits.
        """
        super().after_step(progress)
        ema_update(self.key, self.query, self.momentum)
        average_running_statistics(self)
        for keys in self.new_keys:
            self.queue.enqueue(gather(keys))
        self.new_keys.clear()

    def _loss(self, query: Tensor, key: Tensor, weights: Tensor | None) -> Tensor:
        return info_nce(query, key, self.queue.keys, temperature=self.temperature, weights=weights)

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        self._order = None
        if not (self.shuffle and self.training and max(world_size(), self.splits) > 1):
            return functional.normalize(upcast(self.key(view)), dim=1)
        self.shuffles += 1
        self._order = permutation(len(view) * world_size(), self.seed, self.shuffles).to(view.device)
        return functional.normalize(upcast(shuffle_bn_forward(self.key, view, self._order)), dim=1)

    def get_extra_state(self) -> dict[str, float]:
        """Part of state_dict()."""
        return {**super().get_extra_state(), "shuffles": self.shuffles}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Part of load_state_dict()."""
        super().set_extra_state(state)
        self.shuffles = int(state["shuffles"])


def permutation(count: int, seed: int, step: int) -> Int[Tensor, "count"]:
    """Return a random permutation that depends only on the arguments, the same on every rank and after a resume."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randperm(count, generator=generator)


@torch.no_grad()
def shuffle_bn_forward(network: nn.Module, images: Float[Tensor, "B C H W"], order: Int[Tensor, "WB"]) -> Tensor:
    """Return network(images), computed on rows shuffled over all ranks and restored to their order.

    https://arxiv.org/abs/1911.05722 section 3.3, shuffling BN.

    Args:
        network: the network to apply.
        images: images of this rank.
        order: a permutation of the rows of all ranks, the same on every rank.
    """
    mine = order.chunk(world_size())[rank()]
    return unshuffle(network(gather(images)[mine]), order)


@torch.no_grad()
def unshuffle(rows: Shaped[Tensor, "B *rest"], order: Int[Tensor, "WB"]) -> Shaped[Tensor, "B *rest"]:
    """Gather the outputs of all ranks for rows shuffled by `order`, and return those of this rank's own rows."""
    return gather(rows)[order.argsort().chunk(world_size())[rank()]]
