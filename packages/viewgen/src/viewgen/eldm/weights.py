"""What a training step changes: parameters, their average, and the optimizer's memory."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viewgen.eldm.config import TrainingConfig


class Average:
    """An exponential moving average of parameters; decay is min(ceiling, (1 + step) / (10 + step))."""

    def __init__(self, module: nn.Module, ceiling: float) -> None:
        self.ceiling = ceiling
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the parameters after optimizer step ``step``, counted from 0."""
        decay = min(self.ceiling, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [parameter.detach() for parameter in module.parameters()], 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from saved values."""
        for name, value in values.items():
            self.values[name].copy_(value)

    def copy_to(self, module: nn.Module) -> None:
        """Put the averages in place of the parameters."""
        module.load_state_dict(self.values, strict=False)


class Weights:
    """A network with its average and its optimizer (AdamW).

    Args:
        module: the network, on its device.
        config: of its training.
        parts: its parts, where the gradient of each is clipped apart; only the first is averaged and so kept.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, parts: Sequence[nn.Module] = ()) -> None:
        self.module, self.config, self.parts = module, config, tuple(parts) or (module,)
        self.average = Average(self.parts[0], config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(part.parameters())} for part in self.parts],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def update(self, loss: Float[Tensor, ""], step: int) -> float:
        """One step down the gradient of ``loss``; the learning rate it was made with."""
        rate = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        for part in self.parts:
            nn.utils.clip_grad_norm_(part.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.parts[0], step)
        return rate

    def state(self) -> dict:
        """All of it, for a file."""
        return {
            "module": self.module.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict) -> None:
        """Go on from what ``state`` gave."""
        self.module.load_state_dict(state["module"])
        self.average.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to ``final_learning_rate`` of the peak."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return config.learning_rate * warm * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)
