"""Momentum encoders: a slowly following copy of a network."""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from timm.layers.drop import DropPath
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def momentum_copy(module: Module) -> Module:
    """A copy that starts equal, takes no gradient, and drops nothing.

    Without dropout and stochastic depth, as the teacher of facebookresearch/dino main_dino.py.
    """
    follower = copy.deepcopy(module).requires_grad_(False)
    for part in follower.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, nn.Dropout):
            part.p = 0.0
    return follower


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """theta_k <- m theta_k + (1 - m) theta_q, https://arxiv.org/abs/1911.05722 eq. 2.

    Parameters only: a batch norm's running statistics are each network's own, as in the official code.
    """
    targets, sources = _tensors(follower.parameters()), _tensors(leader.parameters())
    torch._foreach_mul_(targets, momentum)
    torch._foreach_add_(targets, sources, alpha=1 - momentum)


def _tensors(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in parameters]
