"""Progress messages of a COCO training, and interruption by signals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NoReturn

import torch
from rich.console import Console

import sslzoo

PRINT_EVERY = 20
"""Steps between two messages."""


class TransferProgress:
    """Prints steps and images, and ends a training after its state was saved.

    Args:
        steps: number of training steps.
        context: this process.
        stop: receives the signals.
    """

    def __init__(self, steps: int, context: sslzoo.DistContext, stop: sslzoo.StopSignal) -> None:
        self._steps, self._worker, self._stop = steps, context, stop
        self._shown = Console(stderr=True, quiet=not context.is_main)
        self._begun, self._signal = time.perf_counter(), 0

    def stop_requested(self) -> bool:
        """Return whether any process received a signal; all processes must call this after the same step."""
        mine = torch.tensor(-self._stop.number, device=self._worker.device)
        self._signal = -int(sslzoo.all_reduce_min(mine))
        return self._signal > 0

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        """Report a finished step.

        Raises:
            TrainingInterrupted: on all processes, if one of them received a signal.
        """
        if done % PRINT_EVERY == 0 or done == self._steps:
            parts = ", ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
            message = f"step {done}/{self._steps}: loss {sum(losses.values()):.3f} ({parts}), {self._minutes}"
            self._shown.print(message, soft_wrap=True)
        if self._signal:
            self.leave(done)

    def leave(self, done: int) -> NoReturn:
        """End the training on all processes.

        Raises:
            TrainingInterrupted: always.
        """
        sslzoo.barrier()
        raise sslzoo.TrainingInterrupted(self._signal, done)

    def image(self, done: int, images: int) -> None:
        """Report an evaluated image of this process."""
        if done % (10 * PRINT_EVERY) == 0 or done == images:
            self._shown.print(f"image {done}/{images}, {self._minutes}")

    @property
    def _minutes(self) -> str:
        return f"{(time.perf_counter() - self._begun) / 60:.1f} min"
