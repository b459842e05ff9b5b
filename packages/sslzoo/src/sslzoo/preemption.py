"""Being told to stop: the signals of schedulers and keyboards, kept until a step has ended."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What `kill` and preempted machines send, Ctrl-C, and what SLURM is often asked to send before the time is up."""


class Stopped(Exception):
    """A training ended early, because it was told to; its state is saved.

    Attributes:
        signal: what told it.
        step: how many steps were done.
    """

    def __init__(self, number: int, step: int) -> None:
        self.signal, self.step = signal.Signals(number), step
        super().__init__(f"stopped by {self.signal.name} after step {step}; the same command goes on from there")

    @property
    def exit_code(self) -> int:
        """128 plus the signal, as shells count: 143 for SIGTERM."""
        return 128 + self.signal


class StopSignal:
    """Inside `with StopSignal() as stop`, a signal does nothing but set `stop.number`; a second Ctrl-C interrupts.

    Outside the main thread, where Python has no signals, it never sets it.
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

    def shelter(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; processes that are started for the first of them never receive the signals.

        A scheduler signals every process of a job. The ones that decode images would die of it, in the middle of the
        step that is to be finished.
        """
        iterator = iter(items)
        old = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            first = list(itertools.islice(iterator, 1))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        yield from first
        yield from iterator
