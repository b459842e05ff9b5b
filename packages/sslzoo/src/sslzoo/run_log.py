"""The scalars of a run, as JSON lines and as TensorBoard events, and wherever else they are wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from genviews_core.files import atomic_write, make_folder, writing


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many values lie between neighbouring edges; the last bin holds its upper edge, too."""

    edges: list[float]
    counts: list[int]


@runtime_checkable
class Curves(Protocol):
    """A further place for scalars."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve; the same step may come twice."""

    def close(self) -> None:
        """No more points come."""


class RunLog:
    """Writes FOLDER/log.jsonl, FOLDER/speed.jsonl and TensorBoard events; a resumed run rewinds all to its step.

    Lines of steps after `resume_step` are dropped when the log opens, because the resumed run will write them again.
    What depends on the machine is in speed.jsonl alone, so that a resumed run's log.jsonl is an undisturbed one's.

    Args:
        folder: made where missing.
        resume_step: the last step whose lines are kept.
        others: get every scalar, too.
    """

    def __init__(self, folder: Path | str, *, resume_step: int = 0, others: Sequence[Curves] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a run needs it

        self.path, self._speed_path = Path(folder) / "log.jsonl", Path(folder) / "speed.jsonl"
        make_folder(self.path.parent)
        for path in (self.path, self._speed_path):
            _rewind(path, resume_step)
        with writing(self.path):
            self._lines = self.path.open("a")
            self._events = SummaryWriter(str(folder), purge_step=resume_step + 1)
        self._others = others

    def write(self, step: int, histograms: Mapping[str, Histogram] | None = None, /, **scalars: float) -> None:
        """Log one step: each scalar becomes a curve of its own; a histogram goes into the line as edges and counts."""
        told = {name: asdict(histogram) for name, histogram in (histograms or {}).items()}
        with writing(self.path):
            self._lines.write(json.dumps({"step": step, **scalars, **told}) + "\n")
            self._lines.flush()
        self._draw(step, scalars)
        for name, histogram in (histograms or {}).items():
            self._add_histogram(name, histogram, step)

    def write_speed(self, step: int, /, **scalars: float) -> None:
        """Log what differs from machine to machine: images per second and the like."""
        with writing(self._speed_path), self._speed_path.open("a") as lines:
            lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._draw(step, scalars)

    def _draw(self, step: int, scalars: Mapping[str, float]) -> None:
        with writing(self.path.parent):  # raises errors of TensorBoard's writer thread
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        for other in self._others:
            other.write(step, scalars)

    def _add_histogram(self, name: str, histogram: Histogram, step: int) -> None:
        """As its own bins; each count stands for the middle of its bin in the sums."""
        edges, counts = np.array(histogram.edges), np.array(histogram.counts)
        middles = (edges[1:] + edges[:-1]) / 2
        self._events.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=counts @ middles,
            sum_squares=counts @ middles**2,
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def close(self) -> None:
        """Flush all files."""
        self._lines.close()
        self._events.close()
        for other in self._others:
            other.close()


def _rewind(path: Path, step: int) -> None:
    """Drop the lines after a step, and half a line."""
    if path.exists():
        kept = [row for row in read_log(path) if row["step"] <= step]
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept))


def read_log(path: Path | str) -> list[dict[str, Any]]:
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
