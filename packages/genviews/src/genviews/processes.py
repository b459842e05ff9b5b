"""Distributed context of a job. This is the only place where genviews reads environment variables."""

from __future__ import annotations

import os
from datetime import timedelta

import sslzoo


def join_processes(device: str, *, timeout: timedelta | None = None) -> sslzoo.DistContext:
    """Join the processes started by `genviews launch` or torchrun, or run as a single process.

    Args:
        device: see `sslzoo.init_distributed`.
        timeout: timeout of collective operations; None: torch's default.

    Raises:
        ValueError: the device does not exist, or there are fewer GPUs than processes.
    """
    return sslzoo.init_distributed(os.environ, device, timeout=timeout)
