"""Rivals timed in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def rates(work: Mapping[str, Callable[[], object]], *, items: int, rounds: int, warmup: int = 2) -> dict[str, float]:
    """Items per second of each piece of work, from the median of `rounds` rounds that run all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warmup + rounds):
        for name, run in work.items():
            _synchronise()
            started = time.perf_counter()
            run()
            _synchronise()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: items / statistics.median(taken) for name, taken in seconds.items()}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
