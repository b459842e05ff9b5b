"""Heads: the layers after a backbone, and the encoder that joins both.

Shapes: B samples, D features, P projection dimensions, K prototypes, H x W pixels.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Encoder(nn.Module):
    """A backbone and its head, both set to training mode (loaded backbones are in evaluation mode)."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.train()

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P"]:
        """Return the output of the head."""
        return self.head(self.backbone(images))


def mlp(
    widths: Sequence[int],
    *,
    bias: bool,
    last_bias: bool,
    last_norm: Literal["none", "plain", "affine"] = "none",
) -> nn.Sequential:
    """Build a projector or predictor: linear layers with batch norm and ReLU in between.

    Args:
        widths: width of the input, of each hidden layer, and of the output.
        bias: whether the linear layers before a batch norm and ReLU have a bias.
        last_bias: whether the last linear layer has a bias.
        last_norm: batch norm after the last layer, without ("plain") or with ("affine") learnable scale and shift.
    """
    *hidden, output = widths[1:]
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise([widths[0], *hidden]):
        layers += [nn.Linear(in_features, out_features, bias=bias), nn.BatchNorm1d(out_features), nn.ReLU(inplace=True)]
    layers.append(nn.Linear([widths[0], *hidden][-1], output, bias=last_bias))
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(output, affine=last_norm == "affine"))
    return nn.Sequential(*layers)


def moco_head(features: int, hidden: int, dim: int) -> nn.Sequential:
    """Build Linear, ReLU, Linear: facebookresearch/moco@132aea9 moco/builder.py with mlp=True."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


class DINOHead(nn.Module):
    """MLP with GELU, L2 normalization, prototypes: DINOHead of facebookresearch/dino vision_transformer.py."""

    def __init__(self, features: int, *, out_dim: int, hidden: int, bottleneck: int, layers: int, batch_norm: bool,
                 norm_last_layer: bool):  # fmt: skip
        super().__init__()
        widths = [features, *[hidden] * (layers - 1)]
        modules: list[nn.Module] = []
        for in_features, out_features in pairwise(widths):
            norm = [nn.BatchNorm1d(out_features)] if batch_norm else []
            modules += [nn.Linear(in_features, out_features), *norm, nn.GELU()]
        self.mlp = nn.Sequential(*modules, nn.Linear(widths[-1], bottleneck))
        for linear in self.mlp:
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)  # same file, DINOHead._init_weights
                nn.init.zeros_(linear.bias)
        self.prototypes = Prototypes(bottleneck, out_dim, fixed_norm=norm_last_layer)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Return logits over the prototypes."""
        return self.prototypes(functional.normalize(self.mlp(features), dim=-1))


class Prototypes(nn.Module):
    """A linear layer without bias whose rows are g v/|v|; g stays 1 if `fixed_norm`."""

    def __init__(self, dim: int, count: int, *, fixed_norm: bool):
        super().__init__()
        self.direction = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach())
        self.norm = nn.Parameter(torch.ones(count, 1)) if not fixed_norm else None

    def forward(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Return the inner products with the normalized rows."""
        rows = functional.normalize(self.direction, dim=1)
        return functional.linear(embeddings, rows if self.norm is None else self.norm * rows)
