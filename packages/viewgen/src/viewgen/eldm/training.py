"""The training loop of the diffusion model and the autoencoder: optimizer, EMA, checkpoints, logging."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genviews_core import checkpoint as core_checkpoint
from genviews_core.distributed import default_group, rank, world_size
from viewgen.eldm.config import TrainingConfig


class EMA:
    """An exponential moving average of a module's parameters, with decay min(max_decay, (1 + step) / (10 + step)).

    diffusers' EMAModel subtracts scaled differences one parameter at a time; this one lerps all of them in one call,
    and checkpoints resume bit-identically only with the same arithmetic.
    """

    def __init__(self, module: nn.Module, max_decay: float) -> None:
        self.max_decay = max_decay
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Update the averages with the parameters after optimizer step ``step`` (from 0)."""
        decay = min(self.max_decay, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [parameter.detach() for parameter in module.parameters()], 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Load saved averages."""
        for name, value in values.items():
            self.values[name].copy_(value)

    def copy_to(self, module: nn.Module) -> None:
        """Replace the parameters of ``module`` by their averages."""
        module.load_state_dict(self.values, strict=False)


class OptimState:
    """A network, its optimizer (AdamW) and the EMA of its parameters.

    Args:
        module: the network, on its device.
        config: training configuration.
        parts: submodules whose gradients are clipped separately; the EMA is of the first. By default the whole module.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, parts: Sequence[nn.Module] = ()) -> None:
        self.module, self.config, self.parts = module, config, tuple(parts) or (module,)
        self.ema = EMA(self.parts[0], config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(part.parameters())} for part in self.parts],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def update(self, loss: Float[Tensor, ""], step: int) -> float:
        """Take one optimizer step on ``loss`` and return its learning rate."""
        lr = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss.backward()
        for part in self.parts:
            nn.utils.clip_grad_norm_(part.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.parts[0], step)
        return lr

    def state(self) -> dict:
        """Return the checkpoint of module, EMA and optimizer."""
        return {
            "module": self.module.state_dict(),
            "average": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict) -> None:
        """Load a checkpoint of ``state``."""
        self.module.load_state_dict(state["module"])
        self.ema.load(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine to ``final_learning_rate`` of the peak."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return config.learning_rate * warm * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


STATE_FILE = "training_state.pt"
CONFIG_FILE = "training.json"


def save_checkpoint(folder: Path, step: int, optim: OptimState) -> None:
    """Write the checkpoint after ``step`` optimizer steps, atomically."""
    core_checkpoint.save_checkpoint(folder / STATE_FILE, step=step, settings={}, state=optim.state())


def load_checkpoint(folder: Path, optim: OptimState) -> int:
    """Load the checkpoint, if there is one, and return the number of completed steps.

    Raises:
        ValueError: if the file is damaged, or its step is out of range for this training.
    """
    path = folder / STATE_FILE
    loaded = core_checkpoint.load_checkpoint(path, {}, last_step=optim.config.steps)
    if loaded is None:
        return 0
    step, state = loaded
    with core_checkpoint.restoring(path):
        optim.load(state)
    return step


OnStep = Callable[[int, int, dict[str, float]], None]


@runtime_checkable
class Trainer(Protocol):
    """A network in training and its loss.

    Attributes:
        optim: network, optimizer and EMA.
    """

    optim: OptimState

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one batch, and metrics to log with it."""
        ...


def rank_and_world_size(batch_size: int) -> tuple[int, int]:
    """Return this process's rank and the number of processes.

    Raises:
        ValueError: if the batch size is not a multiple of the number of processes.
    """
    group = default_group()
    world = world_size(group)
    if batch_size % world:
        raise ValueError(f"expected a batch_size that is a multiple of the {world} processes, got {batch_size}")
    return rank(group), world


def train(
    trainer: Trainer,
    batches: Iterable[Any],
    folder: Path,
    start: int,
    *,
    is_main: bool,
    on_step: OnStep | None,
    checkpoint_seconds: float,
) -> None:
    """Take the steps from ``start`` on; the main process saves checkpoints, each after a finite loss of its weights.

    Raises:
        FloatingPointError: if the loss is not finite; the message names the last checkpoint.
    """
    config = trainer.optim.config
    saved = began = time.monotonic()
    for step, batch in enumerate(batches, start):
        loss, metrics = trainer.loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(_nonfinite_message(folder, step, value))
        if is_main and step > start and time.monotonic() - saved >= checkpoint_seconds:
            save_checkpoint(folder, step, trainer.optim)
            saved = time.monotonic()
        lr = trainer.optim.update(loss, step)
        if on_step is not None:
            speed = (step + 1 - start) * config.batch_size / (time.monotonic() - began)
            values = {name: metric.item() for name, metric in metrics.items()}
            on_step(step + 1, config.steps, {"loss": value, **values, "lr": lr, "images_per_second": speed})
    if is_main:
        save_checkpoint(folder, config.steps, trainer.optim)


def _nonfinite_message(folder: Path, step: int, value: float) -> str:
    checkpoint = folder / STATE_FILE
    state = f"the last checkpoint is {checkpoint}" if checkpoint.is_file() else "no checkpoint was saved yet"
    remedy = "train again with a lower learning_rate or bf16=False"
    return f"non-finite loss ({value}) at step {step + 1}; {state}; {remedy}"
