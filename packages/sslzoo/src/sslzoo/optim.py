"""Optimizers with the right parameter groups, LARS, and per-parameter gradient clipping."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from sslzoo.methods.method import Method


def parameter_groups(method: Method, *, weight_decay: float, skip_norm_and_bias: bool) -> list[dict[str, Any]]:
    """Split the trainable parameters by whether their learning rate is scheduled and whether they have weight decay.

    Args:
        method: its `constant_lr_parameters()` keep their learning rate (SimSiam's predictor).
        weight_decay: weight decay of the groups that have it.
        skip_norm_and_bias: no weight decay on biases and on parameters of one dimension or none, as get_params_groups
            of facebookresearch/dino utils.py.

    Returns:
        Groups with the extra keys `constant_lr` and `decays`, which apply_schedule reads.
    """
    constant = {id(parameter) for parameter in method.constant_lr_parameters()}
    groups = [{"params": [], "constant_lr": lr, "decays": decays, "weight_decay": weight_decay * decays}
              for lr, decays in product((False, True), (True, False))]  # fmt: skip
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            decays = not (skip_norm_and_bias and (parameter.ndim <= 1 or name.endswith(".bias")))
            groups[2 * (id(parameter) in constant) + (not decays)]["params"].append(parameter)
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
    """Create an optimizer of the method's parameters that does not change `method.frozen_parameters()`.

    Args:
        name: "sgd", "adamw" or "lars".
        method: the bare method, not its DistributedDataParallel wrapper.
        lr: learning rate; constant for `method.constant_lr_parameters()`.
        weight_decay: weight decay; see parameter_groups.
        momentum: momentum of SGD and LARS; AdamW takes `betas`.
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
        raise ValueError(f"expected optimizer sgd, adamw or lars, got {name!r}; choose one of them")
    optimizer.register_step_pre_hook(lambda *_: _drop_gradients(method))
    return optimizer


def _drop_gradients(method: Method) -> None:
    for parameter in method.frozen_parameters():
        parameter.grad = None


def apply_schedule(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Set the learning rate, and the weight decay if given, of the next step; groups without them keep theirs."""
    for group in optimizer.param_groups:
        if not group["constant_lr"]:
            group["lr"] = lr
        if weight_decay is not None and group["decays"]:
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_grad_per_param(module: nn.Module, max_norm: float) -> None:
    """Clip the norm of the gradient of each parameter: clip_gradients of facebookresearch/dino utils.py."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    for gradient, norm in zip(gradients, torch._foreach_norm(gradients), strict=True):
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))


class LARS(Optimizer):
    """Momentum SGD with layer-wise learning rates: each matrix moves by trust |p| / |g + wd p| times its gradient.

    https://arxiv.org/abs/1708.03888, as moco/optimizer.py of facebookresearch/moco-v3, main_vicreg.py of
    facebookresearch/vicreg and main.py of facebookresearch/barlowtwins: parameters of one dimension or none (biases,
    norms) have neither weight decay nor scaling.

    Args:
        params: parameters or groups.
        lr: learning rate.
        weight_decay: L2 factor.
        momentum: momentum factor.
        trust_coefficient: 0.001 in moco-v3, vicreg, barlowtwins, simclr and dino.
        bias_lr_factor: factor of the learning rate of parameters of one dimension or none: 0.0048/0.2 in barlowtwins
            main.py.
        lr_in_momentum: multiply updates by the learning rate before they enter the momentum buffer, not after:
            classic_momentum of google-research/simclr lars_optimizer.py. The same while the learning rate is constant.
        clip: limit the scale to min(trust |p| / |g + wd p|, lr) / lr: clip_lr of vturrisi/solo-learn
            solo/utils/lars.py, which its recipes for CIFAR use.
    """

    def __init__(
        self,
        params,
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        bias_lr_factor: float = 1.0,
        lr_in_momentum: bool = False,
        clip: bool = False,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        defaults |= {"trust_coefficient": trust_coefficient, "bias_lr_factor": bias_lr_factor}
        super().__init__(params, defaults | {"lr_in_momentum": lr_in_momentum, "clip": clip})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict) -> None:
        update, lr = parameter.grad, group["lr"]
        assert update is not None
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            update = update * _trust_ratio(parameter, update, group)
        else:
            lr = lr * group["bias_lr_factor"]
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        lr_before, lr_after = (lr, 1.0) if group["lr_in_momentum"] else (1.0, lr)
        state["velocity"].mul_(group["momentum"]).add_(update, alpha=lr_before)
        parameter.add_(state["velocity"], alpha=-lr_after)


def _trust_ratio(parameter: Tensor, update: Tensor, group: dict) -> Tensor:
    parameter_norm, update_norm = parameter.norm(), update.norm()
    ratio = group["trust_coefficient"] * parameter_norm / update_norm
    if group["clip"]:
        ratio = (ratio / group["lr"]).clamp(max=1.0)
    return torch.where((parameter_norm > 0) & (update_norm > 0), ratio, 1.0)
