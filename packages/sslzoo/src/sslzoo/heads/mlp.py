"""Projectors and predictors: multilayer perceptrons that differ in their biases and their last batch norm."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn


def mlp(
    widths: Sequence[int],
    *,
    bias: bool,
    last_bias: bool,
    last_norm: Literal["none", "plain", "affine"] = "none",
) -> nn.Sequential:
    """Linear, batch norm, ReLU between one width and the next; a linear layer to the last.

    Args:
        widths: of the features, of each hidden layer, of the output.
        bias: of the linear layers that a batch norm and a ReLU follow.
        last_bias: of the last linear layer.
        last_norm: batch norm after it, without ("plain") or with ("affine") scale and shift of its own.
    """
    *hidden, output = widths[1:]
    layers: list[nn.Module] = []
    for wide_in, wide_out in pairwise([widths[0], *hidden]):
        layers += [nn.Linear(wide_in, wide_out, bias=bias), nn.BatchNorm1d(wide_out), nn.ReLU(inplace=True)]
    layers.append(nn.Linear([widths[0], *hidden][-1], output, bias=last_bias))
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(output, affine=last_norm == "affine"))
    return nn.Sequential(*layers)


def moco_head(features: int, hidden: int, dim: int) -> nn.Sequential:
    """Linear, ReLU, Linear: facebookresearch/moco@132aea9 moco/builder.py with mlp=True."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))
