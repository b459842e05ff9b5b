"""SimCLR: https://arxiv.org/abs/2002.05709, with the head of SimCLRv2: https://arxiv.org/abs/2006.10029.

Shapes: B samples, D projection dimensions, H x W pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sslzoo.distributed import gather, rank, world_size
from sslzoo.heads import Encoder, mlp
from sslzoo.losses import nt_xent
from sslzoo.losses.reduction import upcast
from sslzoo.methods.dino import encode_views
from sslzoo.methods.method import Method, Weights, resolve_weights, two_views
from sslzoo.statistics import embedding_std


class SimCLR(Method):
    """Two views; the negatives of a view are all views of other images, on all ranks, with gradient.

    Defaults: google-research/simclr@383d414 run.py (flags) and model_util.py (projection_head). There the backbone
    starts with `zero_init_residual=True`, and both views go through the network together, so that batch norm sees them
    as one batch. For CIFAR-10 the README has temperature 0.5.

    Args:
        backbone: network with `.num_features`.
        projection_dim: D.
        projector_layers: number of linear layers: 3 in the code, 2 in the first paper.
        hidden_dim: hidden width of the projector; None: number of features.
        temperature: T.
    """

    batch_coupled = "negatives"

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projection_dim: int = 128,
        projector_layers: int = 3,
        hidden_dim: int | None = None,
        temperature: float = 0.1,
    ):
        super().__init__()
        features: int = backbone.num_features  # pyright: ignore[reportAssignmentType]
        widths = [features, *[hidden_dim or features] * (projector_layers - 1), projection_dim]
        self.encoder = Encoder(backbone, projection_head(widths))
        self.temperature = temperature

    @property
    def backbone(self) -> nn.Module:
        """The encoder without its projector."""
        return self.encoder.backbone

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return NT-Xent and metrics.

        `std` (embedding_std: near 1 if healthy, 0 if collapsed); `similarity`: mean cosine of the views.
        """
        projections = encode_views(self.encoder, two_views(views, "SimCLR"))
        first, second = functional.normalize(upcast(projections), dim=-1)
        loss = nt_xent(
            first,
            second,
            temperature=self.temperature,
            others=rows_of_other_ranks(torch.cat([first, second])),
            weights=resolve_weights(weights),
        )
        return {"loss": loss, "std": embedding_std(first), "similarity": (first * second).detach().sum(1).mean()}


def projection_head(widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers without bias, each with a batch norm, the last of which has no shift; ReLU in between.

    projection_head and linear_layer of google-research/simclr model_util.py, which initializes weights from N(0, 0.01).
    """
    head = mlp(widths, bias=False, last_bias=False, last_norm="affine")
    head[-1].bias.requires_grad_(False)  # it stays zero  # pyright: ignore
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
    return head


def rows_of_other_ranks(rows: Float[Tensor, "M D"]) -> Float[Tensor, "N D"] | None:
    """Return the rows of the other ranks, with gradient; None with one rank."""
    if world_size() == 1:
        return None
    parts = list(gather(rows).chunk(world_size()))
    del parts[rank()]
    return torch.cat(parts)
