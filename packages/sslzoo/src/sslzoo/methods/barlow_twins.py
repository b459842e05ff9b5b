"""Barlow Twins: https://arxiv.org/abs/2103.03230.

Shapes: B samples, H x W pixels.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.gather import gather, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses import barlow_twins
from sslzoo.losses.batch_statistics import require_two
from sslzoo.losses.reduction import precise
from sslzoo.methods.method import Method, Weights, resolved, spread, two_views


class BarlowTwins(Method):
    """Two views, one network; their cross-correlation over the batch of all ranks becomes the identity.

    Defaults: facebookresearch/barlowtwins@8e8d284 main.py. There the backbone starts with `zero_init_residual=True`,
    and biases and norms learn at 0.0048/0.2 of the other parameters' rate: LARS with `bias_rate=0.024`.

    Its gradients are those of the joined batch. main.py's are smaller by the number of ranks: it sums the correlation
    over ranks without gradient, and DistributedDataParallel then takes the mean.

    Args:
        backbone: with `.num_features`.
        projector: widths of the layers after the features; the last has no batch norm of its own.
        off_diagonal: lambda.
    """

    def __init__(
        self, backbone: nn.Module, *, projector: Sequence[int] = (8192, 8192, 8192), off_diagonal: float = 0.0051
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        self.encoder = Encoder(backbone, mlp([features, *projector], bias=False, last_bias=False))
        self.off_diagonal = off_diagonal

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its projector."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B 3 _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """The loss over the batch of all ranks, and `std`: 1 for a healthy spread, 0 for collapse."""
        images = two_views(views, "Barlow Twins")
        require_two(len(images[0]) * world_size(), "Barlow Twins")
        first, second = (gather(precise(self.encoder(view))) for view in images)
        weights = resolved(weights)
        weights = None if weights is None else gather(weights)
        loss = barlow_twins(first, second, off_diagonal=self.off_diagonal, weights=weights)
        return {"loss": loss, "std": spread(first)}
