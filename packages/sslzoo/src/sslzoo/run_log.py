"""The scalars of a run, as JSON lines and as TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sslzoo.atomic import write_atomically


class RunLog:
    """Writes FOLDER/log.jsonl and TensorBoard events; a resumed run rewinds both to its step.

    Lines of steps after `resume_step` are dropped when the log opens, because the resumed run will write them again.

    Args:
        folder: made where missing.
        resume_step: the last step whose lines are kept.
    """

    def __init__(self, folder: Path | str, *, resume_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a run needs it

        self.path = Path(folder) / "log.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_log(self.path) if row["step"] <= resume_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._lines = self.path.open("a")
        self._events = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def write(self, step: int, **scalars: float) -> None:
        """Log the scalars of one step; each becomes a curve of its own."""
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush both files."""
        self._lines.close()
        self._events.close()


def read_log(path: Path | str) -> list[dict[str, int | float]]:
    """The rows of a log.jsonl in order; none where there is no file. A torn last line is left out."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def log_steps(
    folder: Path | str, on_step: Callable[..., None] | None = None
) -> Callable[[int, int, dict[str, float]], None]:
    """A callback (step, total, scalars) that logs into a folder, rewound to where its first call stands.

    Args:
        folder: see `RunLog`; opened at the first call.
        on_step: called with the same arguments afterwards, for a progress bar.
    """
    opened: list[RunLog] = []

    def log(step: int, total: int, scalars: dict[str, float]) -> None:
        if not opened:
            opened.append(RunLog(folder, resume_step=step - 1))
        opened[0].write(step, **scalars)
        if on_step is not None:
            on_step(step, total, scalars)

    return log
