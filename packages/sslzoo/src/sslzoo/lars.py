"""LARS: layer-wise adaptive rates, https://arxiv.org/abs/1708.03888."""

from collections.abc import Callable

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Momentum SGD whose update of each matrix is scaled by trust |p| / |g + wd p|.

    As moco/optimizer.py of facebookresearch/moco-v3: parameters of one dimension or none (biases, norms) have neither
    decay nor scaling.

    Args:
        params: parameters or groups.
        lr: learning rate.
        weight_decay: L2 factor.
        momentum: of the update.
        trust: the trust coefficient, 0.001 in moco-v3, vicreg and dino.
    """

    def __init__(self, params, *, lr: float, weight_decay: float = 0.0, momentum: float = 0.9, trust: float = 0.001):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
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
        update = parameter.grad
        assert update is not None
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            size, pull = parameter.norm(), update.norm()
            update = update * torch.where((size > 0) & (pull > 0), group["trust"] * size / pull, 1.0)
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        state["velocity"].mul_(group["momentum"]).add_(update)
        parameter.add_(state["velocity"], alpha=-group["lr"])
