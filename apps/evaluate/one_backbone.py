"""What the tests that a word names have in common: a backbone is opened, measured, and its results are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

import ssl_eval
import sslzoo


@dataclass(frozen=True, kw_only=True)
class OneBackbone:
    """A backbone, and where its results go."""

    backbone: Annotated[Path, tyro.conf.Positional]
    """A backbone folder that apps/pretrain wrote, or a checkpoint file of an official repository."""
    name: str | None = None
    """The row's name in tables; left out, the backbone's path."""
    results: Path = Path("results.jsonl")
    """One JSON line a result is appended here."""
    seed: int = 0
    """Seed of the backbone's training, as tables count it."""
    workers: int = 0
    """Processes that decode images."""
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network on its device and what images it knows: `size`, `mean`, `std`."""

    network: nn.Module
    images: Mapping[str, Any]
    device: torch.device
    since: float = field(default_factory=time.perf_counter)


def open_on_device(options: OneBackbone) -> Opened:
    """The backbone.

    Raises:
        ValueError: it cannot be opened, or several processes were started.
    """
    worker = sslzoo.start_worker(os.environ, options.device)
    if worker.world_size > 1:
        raise ValueError("this test runs in one process: start it without torchrun")
    network, images = sslzoo.open_backbone(options.backbone)
    return Opened(network=network.to(worker.device), images=images, device=worker.device)


def keep_results(
    options: OneBackbone, opened: Opened, *, task: str, protocol: str, data: str, percent: Mapping[str, float]
) -> None:
    """Append a line for each metric, and show them."""
    seconds = time.perf_counter() - opened.since
    shown = Table("metric", "percent", title=f"{task} {protocol}: {data}")
    for metric, value in percent.items():
        result = ssl_eval.Result(
            task=task,
            metric=metric,
            value=value,
            protocol=protocol,
            backbone=sslzoo.backbone_hash(opened.network),
            data=data,
            seed=options.seed,
            machine=ssl_eval.machine(),
            seconds=seconds,
            recipe=options.name or str(options.backbone),
        )
        ssl_eval.append_result(options.results, result)
        shown.add_row(metric, f"{value:.2f}")
    Console().print(shown)
