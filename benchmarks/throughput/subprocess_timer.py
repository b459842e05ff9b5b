"""Time a workload in its own process, so that its peak memory is measured alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.throughput.timing import rates

# Out of memory: on a GPU torch raises; on a CPU the kernel kills the process.
OUT_OF_MEMORY = (torch.OutOfMemoryError, BrokenProcessPool)


class Workload(Protocol):
    """Interface of a workload."""

    def prepare(self, work: str, batch: int) -> Callable[[], object]:
        """Return a function that computes ``batch`` items from prepared inputs."""
        ...


@dataclass(frozen=True)
class Measured:
    """Items per second, and peak memory in GB, including weights."""

    rate: float
    peak: float


@dataclass(frozen=True)
class WorkloadSpec:
    """Factory of a workload and its options, which include ``device``."""

    kind: Callable[..., Workload]
    options: tuple[tuple[str, Any], ...]

    @property
    def device(self) -> str:
        """Device of the workload."""
        return dict(self.options)["device"]


class SubprocessTimer:
    """A process that holds a workload, started on first use.

    Args:
        kind: factory of the workload.
        options: arguments of the factory as plain values, including ``device``.
    """

    def __init__(self, kind: Callable[..., Workload], options: Mapping[str, Any]) -> None:
        self.spec = WorkloadSpec(kind, tuple(options.items()))
        self._start()

    def _start(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def __enter__(self) -> SubprocessTimer:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()

    def restart(self) -> None:
        """Restart the process, which frees its memory."""
        self.pool.shutdown()
        self._start()

    def call(self, work: str, batch: int) -> None:
        """Run the workload once."""
        self.pool.submit(_call, self.spec, work, batch).result()

    def measure(self, work: str, batch: int, *, rounds: int) -> Measured:
        """Time the workload without communication between processes, after a warm-up round."""
        return self.pool.submit(_measure, self.spec, work, batch, rounds).result()


def _call(spec: WorkloadSpec, work: str, batch: int) -> None:
    _prepared(spec, work, batch)()


def _measure(spec: WorkloadSpec, work: str, batch: int, rounds: int) -> Measured:
    call, before = _prepared(spec, work, batch), _made(spec)[1]
    _forget_peak(spec.device)
    rate = rates({work: call}, items=batch, rounds=rounds, warmup=1)[work]
    return Measured(rate, (_peak(spec.device) - before) / 1e9)


@cache
def _prepared(spec: WorkloadSpec, work: str, batch: int) -> Callable[[], object]:
    return _made(spec)[0].prepare(work, batch)


@cache
def _made(spec: WorkloadSpec) -> tuple[Workload, int]:
    """Return the workload, and the bytes used by the process before its creation."""
    _forget_peak(spec.device)
    before = _peak(spec.device)
    return spec.kind(**dict(spec.options)), before


def _forget_peak(device: str) -> None:
    """Reset the peak of torch's tensors on a GPU, or of the resident memory on a CPU (Linux)."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int:
    """Return the peak memory in bytes since the last reset."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
