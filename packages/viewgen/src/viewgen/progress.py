"""A bar with rate and time left on a terminal; a line every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Call the result with (done, total)."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn(what),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f}/s  left"),
        TimeRemainingColumn(),
    )
    began: tuple[float, int] | None = None  # when the first was done, and how many were then
    said = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None, rate=0.0)

        def update(done: int, total: int) -> None:
            nonlocal said, began
            now = time.monotonic()
            began = began or (now, done)
            rate = (done - began[1]) / max(now - began[0], 1e-9)
            bars.update(task, completed=done, total=total, rate=rate)
            if not console.is_terminal and (done >= total or now - said > PLAIN_SECONDS):
                said = now
                left = f"{(total - done) / rate:.0f} s left" if rate else ""
                console.print(f"{what} {done}/{total}  {rate:.1f}/s  {left}".rstrip())

        yield update
