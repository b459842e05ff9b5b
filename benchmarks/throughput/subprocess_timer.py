"""Something timed in a process of its own, so that its peak memory is nobody else's."""

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

# On a GPU; on a CPU the kernel kills the process.
OUT_OF_MEMORY = (torch.OutOfMemoryError, BrokenProcessPool)


class Workload(Protocol):
    """What is held there."""

    def prepare(self, work: str, batch: int) -> Callable[[], object]:
        """A call that makes ``batch`` items, its inputs ready."""
        ...


@dataclass(frozen=True)
class Measured:
    """Items per second, and the most memory held meanwhile, weights included, in GB."""

    rate: float
    peak: float


@dataclass(frozen=True)
class WorkloadSpec:
    """How to make a workload: what to call, and the options, of which ``device`` is one."""

    kind: Callable[..., Workload]
    options: tuple[tuple[str, Any], ...]

    @property
    def device(self) -> str:
        """Where it runs."""
        return dict(self.options)["device"]


class SubprocessTimer:
    """Holds a workload, made on first use.

    Args:
        kind: makes it, from the options.
        options: plain values; ``device`` among them.
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
        """Give back all it holds."""
        self.pool.shutdown()
        self._start()

    def call(self, work: str, batch: int) -> None:
        """Do it once."""
        self.pool.submit(_call, self.spec, work, batch).result()

    def measure(self, work: str, batch: int, *, rounds: int) -> Measured:
        """Time it there, the way to and fro left out, after one round that is not timed."""
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
    """The workload, and the bytes that the process held before it."""
    _forget_peak(spec.device)
    before = _peak(spec.device)
    return spec.kind(**dict(spec.options)), before


def _forget_peak(device: str) -> None:
    """Count anew: torch's tensors on a GPU, the process's resident memory on a CPU (Linux)."""
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")
    else:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int:
    """The most bytes held since."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
