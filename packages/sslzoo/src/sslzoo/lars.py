"""LARS: layer-wise adaptive rates, https://arxiv.org/abs/1708.03888."""

from collections.abc import Callable

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Momentum SGD whose update of each matrix is scaled by trust |p| / |g + wd p|.

    As moco/optimizer.py of facebookresearch/moco-v3, main_vicreg.py of facebookresearch/vicreg and main.py of
    facebookresearch/barlowtwins: parameters of one dimension or none (biases, norms) have neither decay nor scaling.

    Args:
        params: parameters or groups.
        lr: learning rate.
        weight_decay: L2 factor.
        momentum: of the update.
        trust: the trust coefficient, 0.001 in moco-v3, vicreg, barlowtwins, simclr and dino.
        bias_rate: learning rate of the parameters of one dimension or none, as a share of `lr`: 0.0048/0.2 in
            barlowtwins main.py.
        rate_in_velocity: the velocity sums updates times the rate of their own step, and is not multiplied by the rate
            of the step that takes it: classic_momentum of google-research/simclr lars_optimizer.py. The same while the
            rate is constant.
        clip: a matrix moves by its gradient times at most 1, min(trust |p| / |g + wd p|, lr) in all: clip_lr of
            vturrisi/solo-learn solo/utils/lars.py, which its recipes for CIFAR use.
    """

    def __init__(
        self,
        params,
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 0.001,
        bias_rate: float = 1.0,
        rate_in_velocity: bool = False,
        clip: bool = False,
    ):
        options = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust}
        super().__init__(params, options | {"bias_rate": bias_rate, "rate_in_velocity": rate_in_velocity, "clip": clip})

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
        update, rate = parameter.grad, group["lr"]
        assert update is not None
        if parameter.ndim > 1:
            update = update.add(parameter, alpha=group["weight_decay"])
            update = update * _scale(parameter, update, group)
        else:
            rate = rate * group["bias_rate"]
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        inside, outside = (rate, 1.0) if group["rate_in_velocity"] else (1.0, rate)
        state["velocity"].mul_(group["momentum"]).add_(update, alpha=inside)
        parameter.add_(state["velocity"], alpha=-outside)


def _scale(parameter: Tensor, update: Tensor, group: dict) -> Tensor:
    size, pull = parameter.norm(), update.norm()
    scale = group["trust"] * size / pull
    if group["clip"]:
        scale = (scale / group["lr"]).clamp(max=1.0)
    return torch.where((size > 0) & (pull > 0), scale, 1.0)
