"""How fast we are beside the others: every figure is a ratio from one run, on the same work and the same cores.

uv run --group rivals benchmarks/throughput step            # a whole training step beside lightly's modules
uv run --group rivals benchmarks/throughput augmentation    # a batch of augmentations beside torchvision and kornia
"""

from __future__ import annotations

import platform
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from augmentation import AugmentationBenchmark, measure_augmentation
from step import StepBenchmark, measure_steps

COLUMNS = {
    StepBenchmark: ("method", "precision", "ours, pairs/s", "lightly, pairs/s", "ratio", "to lightly's default"),
    AugmentationBenchmark: (
        "px",
        "ours, images/s",
        "torchvision PIL",
        "torchvision tensor",
        "kornia",
        "to torchvision",
    ),
}


def main() -> None:
    """Measure what is asked for and print the table."""
    chosen = tyro.cli(
        Annotated[StepBenchmark, tyro.conf.subcommand("step")]
        | Annotated[AugmentationBenchmark, tyro.conf.subcommand("augmentation")],
        description=__doc__,
    )
    rows = measure_steps(chosen) if isinstance(chosen, StepBenchmark) else measure_augmentation(chosen)
    device = torch.cuda.get_device_name() if chosen.device != "cpu" else f"{torch.get_num_threads()} CPU threads"
    table = Table(*COLUMNS[type(chosen)], title=f"{device}, {platform.machine()}, torch {torch.__version__}")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
