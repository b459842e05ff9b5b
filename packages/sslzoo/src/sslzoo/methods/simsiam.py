"""SimSiam: https://arxiv.org/abs/2011.10566.

Shapes: B samples, H x W pixels.
"""

from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.heads import Encoder, mlp
from sslzoo.losses import negative_cosine
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.statistics import embedding_std


class SimSiam(Method):
    """Two views, one network; the prediction of each view matches the detached projection of the other.

    Defaults: facebookresearch/simsiam@a7bc177 main_simsiam.py and simsiam/builder.py. There the backbone starts with
    `zero_init_residual=True`. The predictor's learning rate stays fixed (`--fix-pred-lr`).

    Args:
        backbone: network with `.num_features`.
        projection_dim: output width of the projector.
        prediction_dim: hidden width of the predictor.
        projector_layers: number of linear layers: 3 for ImageNet; 2 in the paper's CIFAR-10 experiment.
    """

    def __init__(
        self, backbone: nn.Module, *, projection_dim: int = 2048, prediction_dim: int = 512, projector_layers: int = 3
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        widths = [*[features] * projector_layers, projection_dim]
        self.encoder = Encoder(backbone, mlp(widths, bias=False, last_bias=False, last_norm="plain"))
        self.predictor = mlp([projection_dim, prediction_dim, projection_dim], bias=False, last_bias=True)

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its projector."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return (D(p1, sg(z2)) + D(p2, sg(z1))) / 2, and `std` (embedding_std: near 1 if healthy, 0 if collapsed)."""
        first, second = (self.encoder(view) for view in two_views(views, "SimSiam"))
        weights = resolve_weights(weights)
        loss = negative_cosine(self.predictor(first), second.detach(), weights)
        loss = (loss + negative_cosine(self.predictor(second), first.detach(), weights)) / 2
        return {"loss": loss, "std": embedding_std(first)}

    def constant_lr_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the predictor."""
        return self.predictor.parameters()
