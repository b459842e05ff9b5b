"""What happens between one step and the next: a look at the numbers, a report, a checkpoint, perhaps the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

import sslzoo
from genviews.pretraining.guard import Guard
from genviews.pretraining.report import Report
from genviews.pretraining.state import Training
from sslzoo import DistContext, TrainingInterrupted


class Keeper:
    """Keeps a training's log and checkpoint.

    Args:
        training: where it stands.
        guard: says when it must end.
        report: says how it goes.
        worker: this process.
        total: steps of the whole training.
        log_every: steps from one report to the next; the first and the last step always have one.
        checkpoint_seconds: from one checkpoint to the next; the end always has one.
        measure: gives what is to be measured after so many steps, or None.
    """

    def __init__(
        self,
        training: Training,
        guard: Guard,
        report: Report,
        worker: DistContext,
        *,
        total: int,
        log_every: int,
        checkpoint_seconds: float,
        measure: Callable[[int], Callable[[], dict[str, float]] | None],
    ) -> None:
        self._training, self._guard, self._report, self._worker = training, guard, report, worker
        self._total, self._log_every, self._checkpoint_seconds = total, log_every, checkpoint_seconds
        self._measure, self._saved = measure, time.monotonic()
        self._first = training.step + 1

    def after_step(self, metrics: dict[str, Tensor]) -> None:
        """Count the step; report and save where it is time. All processes call it.

        Raises:
            FloatingPointError: a loss or a parameter is no number; the last good checkpoint stays.
            Stopped: a signal came, and the checkpoint is written.
        """
        training = self._training
        training.step += 1
        last = training.step == self._total
        measure = self._measure(training.step)
        telling = training.step == 1 or last or measure is not None or training.step % self._log_every == 0
        self._guard.see(metrics["loss"], training.step)
        number = self._guard.agree(training, now=telling)
        if telling:
            self._report.tell(metrics, measure)
        elif training.step == self._first:
            self._report.show(metrics)
        if last or number or time.monotonic() - self._saved > self._checkpoint_seconds:
            self._save()
        if number:
            sslzoo.barrier()
            raise TrainingInterrupted(number, training.step)

    def _save(self) -> None:
        if self._worker.is_main and self._guard.may_save(self._training):
            self._training.save()
        self._saved = time.monotonic()
