"""Training throughput: images per second, and model FLOPs utilization (MFU)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

PEAK_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.4,
    "H200 NVL": 835.5,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.4,
    "H800": 989.4,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L4": 121.0,
    "V100-PCIE": 112.0,
    "V100S": 130.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""TFLOP/s of dense bf16 matrix products (fp16 on V100 and T4) by words of the device name; the first match applies.

NVIDIA's data sheets of these products, https://www.nvidia.com/en-us/data-center/; where a sheet gives only the figure
with sparsity, half of it. pytorch/torchtitan@0258167 torchtitan/tools/utils.py has the same for A100, H100, H200, B200
and L40S.
"""


def peak_flops(device: torch.device) -> float | None:
    """Return the peak FLOP/s of a device in bf16 (fp16 if it lacks bf16); None if unknown."""
    if device.type != "cuda":
        return None
    return peak_flops_by_name(torch.cuda.get_device_name(device))


def peak_flops_by_name(name: str) -> float | None:
    """Return the peak FLOP/s by the name from torch.cuda.get_device_name."""
    words = name.replace("-", " ").split()
    for known, tera in PEAK_TFLOPS.items():
        if set(known.replace("-", " ").split()) <= set(words):
            return tera * 1e12
    return None


class ThroughputMeter:
    """Count the floating-point operations of the first step, and measure the time between readings.

    MFU is the fraction of the peak that forward and backward passes use (https://arxiv.org/abs/2204.02311 appendix B),
    including recomputed activations and a network that scores pairs.

    Args:
        device: device of this process.
        peak_tflops: peak of one device; None: known values. Without a peak there is no MFU.
    """

    def __init__(self, device: torch.device, peak_tflops: float | None = None) -> None:
        self._peak = peak_tflops * 1e12 if peak_tflops else peak_flops(device)
        self._counter: FlopCounterMode | None = None
        self.reset()

    def flop_counter(self) -> AbstractContextManager[Any] | None:
        """Return the context of the first step's passes; None for later steps, or without a peak."""
        if self._peak is None or self._counter is not None:
            return None
        self._counter = FlopCounterMode(display=False)
        return self._counter

    def reset(self) -> None:
        """Start a new measurement."""
        self._steps, self._images, self._start = 0, 0, time.monotonic()

    def update(self, images: int) -> None:
        """Count a step of so many images over all processes."""
        self._steps += 1
        self._images += images

    def pop(self) -> dict[str, float]:
        """Return the throughput since the last reading; the device must have finished its steps."""
        seconds = time.monotonic() - self._start
        rates = {"images_per_second": self._images / seconds}
        if self._peak and self._counter:
            rates["mfu"] = self._counter.get_total_flops() * self._steps / seconds / self._peak
        self.reset()
        return rates
