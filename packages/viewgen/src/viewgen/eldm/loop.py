"""The loop of every training here: batches in, weights changed, the state saved now and then."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch.distributed as dist
from torch import Tensor

from viewgen.eldm.state import STATE_FILE, save_state
from viewgen.eldm.weights import Weights

OnStep = Callable[[int, int, dict[str, float]], None]


@runtime_checkable
class Learner(Protocol):
    """What learns, and what a batch tells it."""

    weights: Weights

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, and figures worth logging beside it."""
        ...


def ranks(batch_size: int) -> tuple[int, int]:
    """This process's rank among how many.

    Raises:
        ValueError: if a batch cannot be shared evenly.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if batch_size % world:
        raise ValueError(f"batch_size {batch_size} must be a multiple of the {world} processes")
    return rank, world


def train(
    learner: Learner,
    batches: Iterable[Any],
    folder: Path,
    start: int,
    *,
    leads: bool,
    on_step: OnStep | None,
    checkpoint_seconds: float,
) -> None:
    """Make the steps from ``start`` on; the process that leads saves the state, once a loss has shown it to be good.

    Raises:
        FloatingPointError: if the loss is not finite, naming the last good state.
    """
    config = learner.weights.config
    saved = began = time.monotonic()
    for step, batch in enumerate(batches, start):
        loss, figures = learner.loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(_not_finite(folder, step, value))
        if leads and step > start and time.monotonic() - saved >= checkpoint_seconds:
            save_state(folder, step, learner.weights)
            saved = time.monotonic()
        rate = learner.weights.update(loss, step)
        if on_step is not None:
            speed = (step + 1 - start) * config.batch_size / (time.monotonic() - began)
            told = {name: figure.item() for name, figure in figures.items()}
            on_step(step + 1, config.steps, {"loss": value, **told, "lr": rate, "images_per_second": speed})
    if leads:
        save_state(folder, config.steps, learner.weights)


def _not_finite(folder: Path, step: int, value: float) -> str:
    good = folder / STATE_FILE
    state = f"the last good state is {good}" if good.is_file() else "no state was saved yet"
    return f"the loss became {value} at step {step + 1}; {state}. Train again with a lower learning_rate or bf16=False"
