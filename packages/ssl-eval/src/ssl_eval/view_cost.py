"""Cost of a view: the time to generate it, and the number of parameters of the generator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

WARM_UP = 3
"""Number of warm-up calls, which compile, allocate and fill caches."""


class Timer:
    """Measures the mean wall time of calls.

    Args:
        device: device of the calls; a GPU is synchronized after each call.
        warm_up: number of calls before the measurement.
    """

    def __init__(self, device: str | torch.device = "cpu", *, warm_up: int = WARM_UP) -> None:
        self._device, self._warm_up, self._seconds = torch.device(device), warm_up, 0.0
        self.count = 0

    def __call__(self, call: Callable[..., object], *arguments: Any) -> None:
        """Time one call; the first one is preceded by the warm-up."""
        for _ in range(0 if self.count else self._warm_up):
            call(*arguments)
        self._wait()
        started = time.perf_counter()
        call(*arguments)
        self._wait()
        self._seconds += time.perf_counter() - started
        self.count += 1

    @property
    def milliseconds(self) -> float | None:
        """Mean time of a call; None before the first call."""
        return 1000 * self._seconds / self.count if self.count else None

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def count_parameters(maker: object) -> int:
    """Count the parameters of all networks in an object's attributes, recursively, each once."""
    parameters = {id(each): each.numel() for network in _networks(maker, set()) for each in network.parameters()}
    return sum(parameters.values())


def _networks(thing: object, seen: set[int]) -> Iterable[nn.Module]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        yield thing
        return
    if isinstance(thing, list | tuple):
        parts: Iterable[object] = thing
    else:
        parts = (thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})).values()
    for part in parts:
        yield from _networks(part, seen)
