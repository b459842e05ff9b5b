"""Momentum encoders: an exponential moving average (EMA) of a network's parameters."""

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def ema_copy(module: Module) -> Module:
    """Return a copy with equal parameters, without gradients, dropout and stochastic depth.

    As the teacher of facebookresearch/dino main_dino.py.
    """
    ema = copy.deepcopy(module).requires_grad_(False)
    for part in ema.modules():
        if hasattr(part, "drop_prob"):  # timm's DropPath; a check of its class would import timm
            part.drop_prob = 0.0  # pyright: ignore[reportArgumentType]
        elif isinstance(part, nn.Dropout):
            part.p = 0.0
    return ema


@torch.no_grad()
def ema_update(ema: nn.Module, online: nn.Module, momentum: float) -> None:
    """Update theta_k <- m theta_k + (1 - m) theta_q, https://arxiv.org/abs/1911.05722 eq. 2.

    Only parameters: each network keeps its own batch norm statistics, as in the official code.
    """
    targets = [parameter.detach() for parameter in ema.parameters()]
    torch._foreach_mul_(targets, momentum)
    torch._foreach_add_(targets, [parameter.detach() for parameter in online.parameters()], alpha=1 - momentum)
