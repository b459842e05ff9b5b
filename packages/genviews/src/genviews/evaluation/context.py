"""Code shared by the evaluation tasks: load a backbone, and append the results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

import ssl_eval
import sslzoo
from genviews.evaluation.options import EvalOptions
from genviews.processes import join_processes
from genviews_core.channels import RGB
from genviews_core.distributed import all_gather_object, default_group
from ssl_eval.image_files import ReaderConfig, SkippedFiles
from ssl_eval.item_loader import OnUnreadable, raise_error

DIST_TIMEOUT = timedelta(days=30)
"""Timeout of collective operations, during which processes wait for each other."""


@dataclass(frozen=True, kw_only=True)
class LoadedBackbone:
    """A network on this process's device, and the `size`, `mean` and `std` of its input images."""

    network: nn.Module
    images: Mapping[str, Any]
    context: sslzoo.DistContext
    on_unreadable: OnUnreadable = raise_error
    since: float = field(default_factory=time.perf_counter)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.context.device

    @property
    def group(self) -> dist.ProcessGroup | None:
        """Process group of all ranks; None in a single process."""
        return default_group()


def prepared_for(opened: LoadedBackbone, options: EvalOptions, *, batch_size: int = 1) -> ReaderConfig:
    """Return the reader options for the images of an evaluation."""
    return ReaderConfig(
        mean=opened.images["mean"],
        std=opened.images["std"],
        batch_size=batch_size,
        workers=options.workers,
        device=opened.device,
        group=opened.group,
        on_unreadable=opened.on_unreadable,
    )


def log_left_out(line: str) -> None:
    """Print the message of a skipped image."""
    Console(stderr=True).print(f"skipped: {line}", highlight=False, markup=False, soft_wrap=True)


def count_left_out(on_unreadable: OnUnreadable, group: dist.ProcessGroup | None) -> int:
    """Return the number of images skipped by all processes; must be called on every process."""
    mine = list(on_unreadable.lines) if isinstance(on_unreadable, SkippedFiles) else []
    return len({line for lines in all_gather_object(mine, group) for line in lines})


def open_on_device(options: EvalOptions) -> LoadedBackbone:
    """Load the backbone onto this process's device.

    Raises:
        ValueError: it cannot be loaded, or results cannot be written.
    """
    context = join_processes(options.device, timeout=DIST_TIMEOUT)
    ssl_eval.check_results(options.results)
    network, images = sslzoo.resolve_backbone(options.backbone)
    if (channels := len(images["mean"])) != RGB:
        raise ValueError(
            f"this task reads RGB images, got {options.backbone} for images of {channels} channels; evaluate it by "
            "classification"
        )
    on_unreadable = raise_error if options.strict else SkippedFiles(log_left_out)
    return LoadedBackbone(
        network=network.to(context.device), images=images, context=context, on_unreadable=on_unreadable
    )


def keep_results(
    options: EvalOptions, opened: LoadedBackbone, *, task: str, protocol: str, data: str, percent: Mapping[str, float]
) -> None:
    """Append a line for each metric and print a table on the main process; must be called on every process."""
    left_out = count_left_out(opened.on_unreadable, opened.group)
    if not opened.context.is_main:
        return
    seconds = time.perf_counter() - opened.since
    same = {
        "task": task,
        "protocol": protocol,
        "backbone": sslzoo.backbone_hash(opened.network),
        "data": data,
        "seed": options.seed,
        "machine": ssl_eval.machine(),
        "seconds": seconds,
        "recipe": options.name or str(options.backbone),
        "left_out": left_out,
    }
    results = [ssl_eval.Result(metric=metric, value=value, **same) for metric, value in percent.items()]
    ssl_eval.append_results(options.results, results)
    rows = [(metric, f"{value:.2f}") for metric, value in percent.items()]
    table = ssl_eval.Table(
        header=("metric", "percent"), rows=rows, title=f"{task} {protocol}: {data}", caption=caption_of(left_out)
    )
    Console().print(table)


def caption_of(left_out: int) -> str:
    """Return the caption of a results table: the number of skipped images, if any."""
    return f"{left_out} unreadable, skipped; --strict stops instead" if left_out else ""
