"""DINO's head.

Shapes: B samples, D features, K prototypes.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class DINOHead(nn.Module):
    """MLP with GELU, L2 normalisation, prototypes: DINOHead of facebookresearch/dino vision_transformer.py."""

    def __init__(self, features: int, *, out_dim: int, hidden: int, bottleneck: int, layers: int, batch_norm: bool,
                 norm_last_layer: bool):  # fmt: skip
        super().__init__()
        widths = [features, *[hidden] * (layers - 1)]
        parts: list[nn.Module] = []
        for wide_in, wide_out in pairwise(widths):
            parts += [nn.Linear(wide_in, wide_out), *([nn.BatchNorm1d(wide_out)] if batch_norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*parts, nn.Linear(widths[-1], bottleneck))
        for linear in self.mlp:
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)  # same file, DINOHead._init_weights
                nn.init.zeros_(linear.bias)
        self.prototypes = Prototypes(bottleneck, out_dim, fixed_norm=norm_last_layer)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Logits over the prototypes."""
        return self.prototypes(functional.normalize(self.mlp(features), dim=-1))


class Prototypes(nn.Module):
    """A linear layer without bias whose rows are g v/|v|; g stays 1 if `fixed_norm`."""

    def __init__(self, dim: int, count: int, *, fixed_norm: bool):
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach())
        self.norm = nn.Parameter(torch.ones(count, 1)) if not fixed_norm else None

    def forward(self, points: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Inner products with the normalised rows."""
        rows = functional.normalize(self.direction, dim=1)
        return functional.linear(points, rows if self.norm is None else self.norm * rows)
