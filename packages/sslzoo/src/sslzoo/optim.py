"""Optimizers with the right parameter groups."""

from itertools import product
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from sslzoo.lars import LARS
from sslzoo.methods.method import Method


def parameter_groups(method: Method, *, weight_decay: float, skip_norm_and_bias: bool) -> list[dict[str, Any]]:
    """Trainable parameters, split by whether their rate is scheduled and whether they decay.

    Args:
        method: says which parameters keep their rate (SimSiam's predictor).
        weight_decay: of the groups that decay.
        skip_norm_and_bias: no decay on biases and on parameters of one dimension or none, as get_params_groups of
            facebookresearch/dino utils.py.

    Returns:
        Groups with the extra keys `fixed_rate` and `decays`, which apply_schedule reads.
    """
    fixed = {id(parameter) for parameter in method.fixed_rate_parameters()}
    groups = [{"params": [], "fixed_rate": rate, "decays": decays, "weight_decay": weight_decay * decays}
              for rate, decays in product((False, True), (True, False))]  # fmt: skip
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            decays = not (skip_norm_and_bias and (parameter.ndim <= 1 or name.endswith(".bias")))
            groups[2 * (id(parameter) in fixed) + (not decays)]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def build_optimizer(
    name: str,
    method: Method,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    skip_norm_and_bias: bool | None = None,
    **options: Any,
) -> Optimizer:
    """An optimizer over the method's parameters that leaves `method.frozen_parameters()` alone.

    Args:
        name: "sgd", "adamw" or "lars".
        method: the bare method, not its DistributedDataParallel wrapper.
        lr: learning rate; also that of fixed-rate groups for the whole training.
        weight_decay: of the parameters that decay.
        momentum: of SGD and LARS; AdamW takes `betas`.
        skip_norm_and_bias: see parameter_groups; None: as published, False for sgd and True for adamw and lars.
        options: passed on to the optimizer.

    Raises:
        ValueError: unknown name.
    """
    skip = name != "sgd" if skip_norm_and_bias is None else skip_norm_and_bias
    groups = parameter_groups(method, weight_decay=weight_decay, skip_norm_and_bias=skip)
    if name == "sgd":
        optimizer = SGD(groups, lr=lr, momentum=momentum, **options)
    elif name == "adamw":
        optimizer = AdamW(groups, lr=lr, **options)
    elif name == "lars":
        optimizer = LARS(groups, lr=lr, momentum=momentum, **options)
    else:
        raise ValueError(f"Unknown optimizer {name!r}; choose sgd, adamw or lars.")
    optimizer.register_step_pre_hook(lambda *_: _drop_gradients(method))
    return optimizer


def apply_schedule(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Set the coming step's learning rate, and weight decay if given; fixed-rate and undecayed groups keep theirs."""
    for group in optimizer.param_groups:
        if not group["fixed_rate"]:
            group["lr"] = lr
        if weight_decay is not None and group["decays"]:
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_gradients(module: nn.Module, max_norm: float) -> None:
    """Scale each parameter's own gradient down to norm `max_norm`: clip_gradients of facebookresearch/dino utils.py."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    for gradient, norm in zip(gradients, torch._foreach_norm(gradients), strict=True):
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))


def _drop_gradients(method: Method) -> None:
    for parameter in method.frozen_parameters():
        parameter.grad = None
