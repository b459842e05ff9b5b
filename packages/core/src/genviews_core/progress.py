"""Progress bars with rate and remaining time on a terminal; elsewhere, a line every few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 15.0
"""Without a terminal, a task's progress is printed at its start and then at most once per this many seconds."""
SHOWN = {"loss": "loss {:.3f}", "knn": "kNN {:.1f}%", "images_per_second": "{:.0f} images/s", "mfu": "MFU {:.1%}"}
"""Scalars beside a bar, in this order."""


class Progress:
    """One bar per task.

    Args:
        shown: whether to print anything, for example only on the main process.
        stderr: print to standard error, for commands whose result goes to standard output.
    """

    def __init__(self, *, shown: bool = True, stderr: bool = False) -> None:
        self.console = Console(quiet=not shown, stderr=stderr)
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Bars(*columns, console=self.console, disable=not (shown and self.console.is_terminal))

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def message(self, text: str) -> None:
        """Print a line above the bars, without markup."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def add_task(self, name: str) -> Callable[..., None]:
        """Add a task and return its update function, called with (done, total) and optionally a dict of scalars.

        The scalars named in `SHOWN` appear beside the bar; without any, the rate does.
        """
        task = self._bars.add_task(name, total=None, note="")
        began = time.monotonic()
        printed, origin = -math.inf, None

        def update(done: int, total: int, scalars: Mapping[str, float] | None = None) -> None:
            nonlocal printed, origin
            now = time.monotonic()
            if origin is None:  # a resumed task is timed from its first update on
                origin = (0, began) if done <= 1 else (done, now)
            note = _note(scalars) if scalars else _rate(now - origin[1], done - origin[0])
            self._bars.update(task, completed=done, total=total, note=note)
            if not self.console.is_terminal and (done >= total or now - printed > PLAIN_SECONDS):
                printed = now
                left = _time_left(now - origin[1], done - origin[0], total - done)
                self.console.print(f"{name:<24} {done}/{total}  {now - began:.0f} s{left}  {note}".rstrip())

        return update


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[..., None]]:
    """Show one bar on standard error; yields the update function of `Progress.add_task`."""
    with Progress(stderr=True) as progress:
        yield progress.add_task(name)


def _time_left(seconds: float, done: int, left: int) -> str:
    """Format the estimated remaining time ("  about 12 min left"); empty if unknown."""
    if not (done and left):
        return ""
    seconds = seconds / done * left
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"  about {seconds / size:.0f} {unit} left"
    return f"  about {seconds:.0f} s left"


def _note(scalars: Mapping[str, float]) -> str:
    return "  ".join(form.format(scalars[name]) for name, form in SHOWN.items() if name in scalars)


def _rate(seconds: float, done: int) -> str:
    return f"{done / seconds:.3g}/s" if done and seconds > 0 else ""
