"""Images per second, and what share of the device's arithmetic they use."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

import sslzoo
from sslzoo import DistContext


class Speedometer:
    """Counts the first step's floating-point operations and measures the time between readings.

    MFU is the share of the peak that forward and backward passes use (https://arxiv.org/abs/2204.02311 appendix B);
    recomputed activations and a network that scores pairs are counted in.

    Args:
        worker: this process.
        images: of a step, over all processes.
        peak_tflops: of one device; None takes what is known of it, and says nothing of MFU where that is nothing.
    """

    def __init__(self, worker: DistContext, images: int, peak_tflops: float | None) -> None:
        self._images = images
        self._peak = peak_tflops * 1e12 if peak_tflops else sslzoo.peak_flops(worker.device)
        self._counter: FlopCounterMode | None = None
        self.restart(0)

    def counting(self) -> AbstractContextManager[Any] | None:
        """What the first step's passes run in."""
        if self._peak is None or self._counter is not None:
            return None
        self._counter = FlopCounterMode(display=False)
        return self._counter

    def restart(self, step: int) -> None:
        """Measure from here: what has just been done is no part of a step."""
        self._step, self._began = step, time.monotonic()

    def read(self, step: int) -> dict[str, float]:
        """Since the last reading; the device must have done what it was told."""
        steps_per_second = (step - self._step) / (time.monotonic() - self._began)
        self.restart(step)
        told = {"images_per_second": self._images * steps_per_second}
        if self._peak and self._counter:
            told["mfu"] = self._counter.get_total_flops() * steps_per_second / self._peak
        return told
