"""Log the metrics of a run as JSON lines, TensorBoard events, and to further sinks such as Weights & Biases."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from genviews_core.files import atomic_write, make_folder, writing
from sslzoo.training.config import TrainConfig
from sslzoo.training.diagnostics import CollapseDetector
from sslzoo.training.state import TrainState
from sslzoo.training.throughput import ThroughputMeter


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values between consecutive edges; the last bin includes its upper edge."""

    edges: list[float]
    counts: list[int]


@runtime_checkable
class LogSink(Protocol):
    """A further destination of scalars."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars; a resumed run may log a step twice."""

    def close(self) -> None:
        """Flush and finish."""


class MetricWriter:
    """Write FOLDER/log.jsonl, FOLDER/speed.jsonl and TensorBoard events.

    Lines after `resume_step` are removed on opening, because the resumed run writes them again. Machine-dependent
    metrics go to speed.jsonl, so that log.jsonl of a resumed run equals that of an uninterrupted one.

    Args:
        folder: created if it does not exist.
        resume_step: last step whose lines are kept.
        sinks: further destinations of every scalar.
    """

    def __init__(self, folder: Path | str, *, resume_step: int = 0, sinks: Sequence[LogSink] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a run needs it

        self.path, self._speed_path = Path(folder) / "log.jsonl", Path(folder) / "speed.jsonl"
        make_folder(self.path.parent)
        for path in (self.path, self._speed_path):
            _rewind(path, resume_step)
        with writing(self.path):
            self._lines = self.path.open("a")
            self._events = SummaryWriter(str(folder), purge_step=resume_step + 1)
        self._sinks = sinks

    def write(self, step: int, histograms: Mapping[str, Histogram] | None = None, /, **scalars: float) -> None:
        """Log one step; histograms are written as edges and counts."""
        rows = {name: asdict(histogram) for name, histogram in (histograms or {}).items()}
        with writing(self.path):
            self._lines.write(json.dumps({"step": step, **scalars, **rows}) + "\n")
            self._lines.flush()
        self._log_scalars(step, scalars)
        for name, histogram in (histograms or {}).items():
            self._add_histogram(name, histogram, step)

    def write_speed(self, step: int, /, **scalars: float) -> None:
        """Log machine-dependent metrics such as images per second."""
        with writing(self._speed_path), self._speed_path.open("a") as lines:
            lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._log_scalars(step, scalars)

    def _log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        with writing(self.path.parent):  # raises errors of TensorBoard's writer thread
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)
        for sink in self._sinks:
            sink.write(step, scalars)

    def _add_histogram(self, name: str, histogram: Histogram, step: int) -> None:
        """Log a histogram with its own bins; sums use the centers of the bins."""
        edges, counts = np.array(histogram.edges), np.array(histogram.counts)
        centers = (edges[1:] + edges[:-1]) / 2
        self._events.add_histogram_raw(
            name,
            min=edges[0],
            max=edges[-1],
            num=counts.sum(),
            sum=counts @ centers,
            sum_squares=counts @ centers**2,
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def close(self) -> None:
        """Flush all files."""
        self._lines.close()
        self._events.close()
        for sink in self._sinks:
            sink.close()


def _rewind(path: Path, step: int) -> None:
    """Remove the lines after a step, and an incomplete last line."""
    if path.exists():
        kept = [row for row in read_log(path) if row["step"] <= step]
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept))


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a log.jsonl in order, without an incomplete last line; empty if there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def log_steps(
    folder: Path | str, on_step: Callable[..., None] | None = None
) -> Callable[[int, int, dict[str, float]], None]:
    """Return a callback (step, total, scalars) that logs into a folder, whose log is rewound to the first call.

    Args:
        folder: see `MetricWriter`; opened at the first call.
        on_step: called with the same arguments afterwards, for a progress bar.
    """
    opened: list[MetricWriter] = []

    def log(step: int, total: int, scalars: dict[str, float]) -> None:
        if not opened:
            opened.append(MetricWriter(folder, resume_step=step - 1))
        opened[0].write(step, **scalars)
        if on_step is not None:
            on_step(step, total, scalars)

    return log


class WandbSink:
    """Logs to one run of Weights & Biases per folder, also after a resume.

    A resumed run logs some steps again with equal values; the first ones are kept there.

    Args:
        project: name of the project.
        folder: folder of the run, which keeps the id.
        config: configuration to show.

    Raises:
        ValueError: the package wandb is not installed.
    """

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(
                "expected the package wandb to log to Weights & Biases, got none; run pip install wandb"
            ) from error
        id_file = folder / "wandb-id"
        if not id_file.exists():
            atomic_write(id_file, secrets.token_hex(8).encode())
        self._run = wandb.init(
            project=project,
            id=id_file.read_text(),
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


OnStep = Callable[[int, int, dict[str, float]], None]


class MetricLogger:
    """Collect the metrics of a training, and log them on the main process.

    Args:
        state: state of the training.
        config: the configuration.
        out: folder of the logs.
        total: number of steps of the training.
        on_step: called with (step, total, scalars) on the main process.
        on_message: called with warnings on the main process.
    """

    def __init__(
        self,
        state: TrainState,
        config: TrainConfig,
        out: Path,
        *,
        total: int,
        on_step: OnStep | None = None,
        on_message: Callable[[str], None],
    ) -> None:
        self.throughput = ThroughputMeter(state.context.device, config.peak_tflops)
        self._collapse = CollapseDetector()
        self._state, self._total, self._on_step, self._on_message = state, total, on_step, on_message
        self._writer = None
        if state.context.is_main:
            sinks = [WandbSink(config.wandb, out, state.fingerprint)] if config.wandb else []
            self._writer = MetricWriter(out, resume_step=state.step, sinks=sinks)

    def show(self, metrics: dict[str, Tensor]) -> None:
        """Show a step without logging it."""
        if self._on_step and self._writer:
            scalars = {"loss": float(metrics["loss"])} | self.throughput.pop()
            self._on_step(self._state.step, self._total, scalars)

    def log(self, metrics: dict[str, Tensor], evaluate: Callable[[], Mapping[str, float]] | None) -> None:
        """Log the step just done, with the metrics of `evaluate`; call it on all processes."""
        state, step = self._state, self._state.step
        scalars = {name: float(value) for name, value in metrics.items()}
        throughput = self.throughput.pop()
        pair_metrics, histograms = state.pair_weighter.summary() if state.pair_weighter else ({}, {})
        scalars |= pair_metrics | state.monitor.summary() | (dict(evaluate()) if evaluate else {})
        if state.scaler.is_enabled():
            scalars["loss_scale"] = state.scaler.get_scale()
        if self._writer:
            self._writer.write(step, histograms, **scalars, lr=state.optimizer.param_groups[0]["lr"])
            self._writer.write_speed(step, **throughput)
            if collapse := self._collapse.check(step, scalars):
                self._on_message(collapse)
            if self._on_step:
                self._on_step(step, self._total, scalars | throughput)
        if evaluate:
            self.throughput.reset()

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer:
            self._writer.close()
