"""Progress bars with rate and remaining time, one per stage; plain lines without a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 15.0
"""Without a terminal, progress is printed at the start of a stage and then at most once per this many seconds."""


class Progress:
    """A column of bars; silent where not `shown`."""

    def __init__(self, *, shown: bool = True) -> None:
        self.console = Console(quiet=not shown)
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

    def stage(self, name: str) -> Callable[..., None]:
        """Add a stage, and return its update function: (done, total) and optional scalars, some of which are shown."""
        task = self._bars.add_task(name, total=None, note="")
        began = time.monotonic()
        printed, origin = -math.inf, None

        def update(done: int, total: int, scalars: Mapping[str, float] | None = None) -> None:
            nonlocal printed, origin
            note = _note(scalars or {})
            self._bars.update(task, completed=done, total=total, note=note)
            now = time.monotonic()
            if origin is None:  # a resumed stage is timed from its first update on
                origin = (0, began) if done <= 1 else (done, now)
            if not self.console.is_terminal and (done >= total or now - printed > PLAIN_SECONDS):
                printed = now
                left = _time_left(now - origin[1], done - origin[0], total - done)
                self.console.print(f"{name:<24} {done}/{total}  {now - began:.0f} s{left}  {note}".rstrip())

        return update


def _time_left(seconds: float, done: int, left: int) -> str:
    """Format the estimated remaining time ("  about 12 min left"); empty if unknown."""
    if not (done and left):
        return ""
    seconds = seconds / done * left
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"  about {seconds / size:.0f} {unit} left"
    return f"  about {seconds:.0f} s left"


SHOWN = {"loss": "loss {:.3f}", "knn": "kNN {:.1f}%", "images_per_second": "{:.0f} images/s", "mfu": "MFU {:.1%}"}
"""Scalars beside a bar, in this order."""


def _note(scalars: Mapping[str, float]) -> str:
    return "  ".join(form.format(scalars[name]) for name, form in SHOWN.items() if name in scalars)
