"""Barlow Twins: https://arxiv.org/abs/2103.03230.

Shapes: B samples, H x W pixels.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.distributed import gather, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses import barlow_twins
from sslzoo.losses.reduction import require_two_images, upcast
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.statistics import embedding_std


class BarlowTwins(Method):
    """Two views, one network; their cross-correlation over the batch of all ranks is driven to the identity.

    Defaults: facebookresearch/barlowtwins@8e8d284 main.py. There the backbone starts with `zero_init_residual=True`,
    and biases and norms have 0.0048/0.2 times the learning rate of other parameters: LARS with `bias_lr_factor=0.024`.

    Its gradients are those of the joined batch. Those of main.py are smaller by a factor of the number of ranks: it
    sums the correlation over ranks without gradient, and DistributedDataParallel then takes the mean.

    Args:
        backbone: network with `.num_features`.
        projector: widths of the layers after the features; the last has no batch norm of its own.
        off_diagonal: lambda.
    """

    batch_coupled = "correlations"

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

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the loss over the batch of all ranks, and `std` (embedding_std: near 1 if healthy, 0 if collapsed)."""
        images = two_views(views, "Barlow Twins")
        require_two_images(len(images[0]) * world_size(), "Barlow Twins")
        first, second = (gather(upcast(self.encoder(view))) for view in images)
        weights = resolve_weights(weights)
        weights = None if weights is None else gather(weights)
        loss = barlow_twins(first, second, off_diagonal=self.off_diagonal, weights=weights)
        return {"loss": loss, "std": embedding_std(first)}
