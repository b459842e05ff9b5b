"""Defer the signals of schedulers and Ctrl-C until the end of a training step."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from genviews_core.command import Interrupted

Item = TypeVar("Item")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Sent by `kill` and on preemption; by Ctrl-C; by SLURM before the time limit, if so configured."""


class TrainingInterrupted(Interrupted):
    """Raised if a signal ends a training early, after its state was saved.

    Attributes:
        signal: the signal.
        step: number of steps done.
    """

    def __init__(self, number: int, step: int) -> None:
        self.signal, self.step = signal.Signals(number), step
        super().__init__(f"stopped by {self.signal.name} after step {step}; the same command goes on from there")

    @property
    def exit_code(self) -> int:
        """128 plus the signal number, as in shells: 143 for SIGTERM."""
        return 128 + self.signal


class StopSignal:
    """Within `with StopSignal() as stop`, a signal only sets `stop.number`; a second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread, where Python handles no signals, it is never set.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number:
            raise KeyboardInterrupt
        self.number = number


def block_signals(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; processes started for the first item never receive the signals.

    A scheduler signals every process of a job; data loading workers would die in the middle of a step.
    """
    iterator = iter(items)
    old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        first = list(itertools.islice(iterator, 1))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    yield from first
    yield from iterator
