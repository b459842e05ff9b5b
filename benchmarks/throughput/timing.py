"""Time several implementations in turn, so that other load of the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def rates(work: Mapping[str, Callable[[], object]], *, items: int, rounds: int, warmup: int = 2) -> dict[str, float]:
    """Return the items per second of each function, from the median of `rounds` rounds that run all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warmup + rounds):
        for name, run in work.items():
            _synchronize()
            started = time.perf_counter()
            run()
            _synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: items / statistics.median(taken) for name, taken in seconds.items()}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
