"""The interface of all methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

Weights = Float[Tensor, "B"] | Callable[[], Tensor] | None
"""Per-sample weights, or a function that returns them, called once after the networks have seen the views; or None."""


class Method(nn.Module, ABC):
    """A self-supervised method: views in, loss out; for any training loop, with or without DistributedDataParallel.

    A step is: forward, backward, optimizer.step(), after_step(). state_dict() holds everything needed to resume.
    """

    batch_norm_per_rank = False
    """Whether batch norm must not be synchronized; `convert_sync_batchnorm` then returns the method unchanged."""
    batch_coupled = ""
    """Batch statistics in the loss besides a mean, which make it depend on gradient accumulation."""

    def __init__(self):
        super().__init__()
        self.progress = 0.0

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The network to export."""

    @property
    def pair_backbones(self) -> tuple[nn.Module, nn.Module]:
        """The networks whose feature maps of the first and the second view are comparable."""
        return self.backbone, self.backbone

    def in_order(self, rows: Tensor) -> Tensor:
        """Restore outputs of the second of `pair_backbones` to the order of this rank's images."""
        return rows

    @abstractmethod
    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the loss as "loss", and detached scalars for logging."""

    def after_step(self, progress: float) -> None:
        """Update momentum networks, queues and the like, after the optimizer's step.

        Args:
            progress: fraction of the training that is done, including this step, in (0, 1].
        """
        self.progress = progress

    def constant_lr_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters whose learning rate is not scheduled."""
        return ()

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the next optimizer step must not change."""
        return ()

    def get_extra_state(self) -> dict[str, float]:
        """Part of state_dict()."""
        return {"progress": self.progress}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Part of load_state_dict()."""
        self.progress = state["progress"]


def resolve_weights(weights: Weights) -> Float[Tensor, "B"] | None:
    """Return the weights, calling the function that computes them if there is one."""
    return weights() if callable(weights) else weights


def two_views(views: Sequence[Tensor], method: str) -> tuple[Tensor, Tensor]:
    """Return the two views; raise ValueError for another number."""
    if len(views) != 2:
        raise ValueError(f"expected 2 views of each image for {method}, got {len(views)}; DINO and SwAV take more")
    return views[0], views[1]
