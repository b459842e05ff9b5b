"""How far a command is: a bar with rate and time left on a terminal, elsewhere a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 10.0


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with (done, total); the rate counts from where a resumed run began."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None, rate="")
        clock = _Clock()

        def update(done: int, total: int) -> None:
            rate, left = clock.tick(done, total)
            bars.update(task, completed=done, total=total, rate=rate)
            if not console.is_terminal and clock.due(done >= total):
                console.print(f"{what} {done}/{total}  {rate}  {left}".rstrip())

        yield update


class _Clock:
    """Rate and time left of a count that may not have begun at zero."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.first: int | None = None

    def tick(self, done: int, total: int) -> tuple[str, str]:
        now = time.monotonic()
        if self.first is None:  # the first batch's own time is not known of a resumed run
            self.first, self.began = done, now
            return "", ""
        rate = (done - self.first) / max(now - self.began, 1e-9)
        return f"{rate:.1f}/s", f"{(total - done) / rate:.0f} s left" if rate else ""

    def due(self, finished: bool) -> bool:
        now = time.monotonic()
        if finished or now - self.said > SECONDS:
            self.said = now
            return True
        return False
