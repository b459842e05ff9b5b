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


def require_main_process(job: str) -> None:
    """Reject all processes of `genviews launch` or torchrun but the first, for jobs that run in a single process.

    Raises:
        ValueError: this process has another rank than 0.
    """
    if int(os.environ.get("RANK", 0)):
        count = os.environ.get("WORLD_SIZE", "several")
        raise ValueError(f"expected genviews {job} to run in one process, got {count}; start it without torchrun")
