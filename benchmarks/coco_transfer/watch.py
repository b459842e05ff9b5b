"""What a training tells while it goes on, and when it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NoReturn

import torch
from rich.console import Console

import sslzoo

TOLD_EVERY = 20
"""Steps between two lines."""


class Watch:
    """Tells of steps and images, and ends a training whose state was just saved.

    Args:
        steps: of the training.
        worker: this process.
        stop: what signals reach it.
    """

    def __init__(self, steps: int, worker: sslzoo.DistContext, stop: sslzoo.StopSignal) -> None:
        self._steps, self._worker, self._stop = steps, worker, stop
        self._shown = Console(stderr=True, quiet=not worker.is_main)
        self._begun, self._signal = time.perf_counter(), 0

    def told_to_stop(self) -> bool:
        """Whether any process was; all ask after the same step."""
        mine = torch.tensor(-self._stop.number, device=self._worker.device)
        self._signal = -int(sslzoo.all_reduce_min(mine))
        return self._signal > 0

    def step(self, done: int, losses: Mapping[str, float]) -> None:
        """A step more.

        Raises:
            Stopped: on all processes, when one was told to.
        """
        if done % TOLD_EVERY == 0 or done == self._steps:
            parts = ", ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
            told = f"step {done}/{self._steps}: loss {sum(losses.values()):.3f} ({parts}), {self._minutes}"
            self._shown.print(told, soft_wrap=True)
        if self._signal:
            self.leave(done)

    def leave(self, done: int) -> NoReturn:
        """End on all processes after so many steps.

        Raises:
            Stopped: always.
        """
        sslzoo.barrier()
        raise sslzoo.TrainingInterrupted(self._signal, done)

    def image(self, done: int, images: int) -> None:
        """An image of this process's more."""
        if done % (10 * TOLD_EVERY) == 0 or done == images:
            self._shown.print(f"image {done}/{images}, {self._minutes}")

    @property
    def _minutes(self) -> str:
        return f"{(time.perf_counter() - self._begun) / 60:.1f} min"
