"""What every method is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Weights = Float[Tensor, "B"] | Callable[[], Tensor] | None
"""One weight per sample; or what gives them, called once, when the networks have seen the views; or ones."""


class Method(nn.Module, ABC):
    """Views in, loss out; trained by any loop, alone or in DistributedDataParallel.

    A step is: forward, backward, optimizer.step(), after_step(). All that a resumed run needs is in state_dict().
    """

    batch_norm_per_rank = False
    """Whether batch norm must not be synchronized; `synchronise_batch_norm` then returns the method unchanged."""

    def __init__(self):
        super().__init__()
        self.progress = 0.0

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The network that is exported."""

    @property
    def pair_backbones(self) -> tuple[nn.Module, nn.Module]:
        """The networks whose maps of the first and of the second view can be compared."""
        return self.backbone, self.backbone

    def in_order(self, rows: Tensor) -> Tensor:
        """Restore outputs of the second of `pair_backbones` to the order of this rank's images."""
        return rows

    @abstractmethod
    def forward(self, views: Sequence[Float[Tensor, "B 3 _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """The loss under "loss", beside it detached scalars for the log."""

    def after_step(self, progress: float) -> None:
        """Whatever changes between steps, once the optimizer has stepped.

        Args:
            progress: share of the training done, this step included, in (0, 1].
        """
        self.progress = progress

    def fixed_rate_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters whose learning rate is not scheduled."""
        return ()

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that the coming optimizer step must leave alone."""
        return ()

    def get_extra_state(self) -> dict[str, float]:
        """Part of state_dict()."""
        return {"progress": self.progress}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Part of load_state_dict()."""
        self.progress = state["progress"]


def resolved(weights: Weights) -> Float[Tensor, "B"] | None:
    """The weights themselves."""
    return weights() if callable(weights) else weights


def two_views(views: Sequence[Tensor], method: str) -> tuple[Tensor, Tensor]:
    """The two views, or one clear line."""
    if len(views) != 2:
        raise ValueError(f"{method} takes two views of each image, not {len(views)}; DINO takes more.")
    return views[0], views[1]


@torch.no_grad()
def spread(embeddings: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Standard deviation of L2-normalised embeddings times sqrt(D): 1 on a whole sphere, 0 when all collapsed.

    https://arxiv.org/abs/2011.10566 section 4.1.
    """
    points = functional.normalize(embeddings.float(), dim=1)
    return points.std(dim=0, correction=0).mean() * points.shape[1] ** 0.5
