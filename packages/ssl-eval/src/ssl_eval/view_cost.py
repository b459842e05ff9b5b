"""What a view costs: the time to make one, and the parameters of what makes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

WARM_UP = 3
"""First calls are not counted: they compile, allocate and fill caches."""


class Timer:
    """Mean wall time of calls, one after another.

    Args:
        device: where the calls compute; on a GPU each is waited for.
        warm_up: so many first calls are not counted.
    """

    def __init__(self, device: str | torch.device = "cpu", *, warm_up: int = WARM_UP) -> None:
        self._device, self._warm_up, self._seconds = torch.device(device), warm_up, 0.0
        self.count = 0

    def __call__(self, call: Callable[..., object], *arguments: Any) -> None:
        """Make one call; the warm-up comes with the first."""
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
        """Of one call; None before the first."""
        return 1000 * self._seconds / self.count if self.count else None

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def count_parameters(maker: object) -> int:
    """Parameters of all networks that an object holds, in its attributes and in theirs, each counted once."""
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
