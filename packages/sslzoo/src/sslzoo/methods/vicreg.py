"""VICReg: https://arxiv.org/abs/2105.04906.

Shapes: B samples, H x W pixels.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.distributed import gather, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses import vicreg
from sslzoo.losses.reduction import require_two_images, upcast
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.statistics import embedding_std


class VICReg(Method):
    """Two views, one network; invariance, variance and covariance are computed over the batch of all ranks.

    Defaults: facebookresearch/vicreg@4e12602 main_vicreg.py (get_arguments, Projector). There the backbone starts with
    `zero_init_residual=True`.

    Args:
        backbone: network with `.num_features`.
        expander: widths of the layers after the features; the last has neither batch norm nor bias.
        invariance: factor of the invariance term.
        variance: factor of the variance term.
        covariance: factor of the covariance term.
    """

    batch_coupled = "variances and covariances"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        expander: Sequence[int] = (8192, 8192, 8192),
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        self.encoder = Encoder(backbone, mlp([features, *expander], bias=True, last_bias=False))
        self.factors = {"invariance": invariance, "variance": variance, "covariance": covariance}

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its expander."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the loss over the batch of all ranks, and `std` (embedding_std: near 1 if healthy, 0 if collapsed)."""
        images = two_views(views, "VICReg")
        require_two_images(len(images[0]) * world_size(), "VICReg")
        first, second = (gather(upcast(self.encoder(view))) for view in images)
        weights = resolve_weights(weights)
        weights = None if weights is None else gather(weights)
        return {"loss": vicreg(first, second, weights=weights, **self.factors), "std": embedding_std(first)}
