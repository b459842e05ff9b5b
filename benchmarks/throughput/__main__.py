"""Speed compared with other libraries: every ratio is from one run, on the same work and the same cores.

uv run --group baselines benchmarks/throughput step            # a training step, against lightly's modules
uv run --group baselines benchmarks/throughput augmentation    # augmentation of a batch, against torchvision and kornia
uv run benchmarks/throughput views                          # every generator; unCLIP against diffusers' pipeline
uv run benchmarks/throughput keys                           # listing, resuming, indexing and verifying a million images
uv run benchmarks/throughput quality                        # cost of pair weights in a ResNet-50 step
uv run --group baselines --extra ffcv benchmarks/throughput loader   # loaders, against torchvision's and lightly's
uv run --group baselines benchmarks/throughput eval  # kNN and the linear probe, against lightly and scikit-learn
uv run benchmarks/throughput trainings --python PYTHON --data DIR    # a training, against LightlyTrain

With --lines each row is printed as a JSON line as soon as it is measured.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.table import Table

from genviews_core.command import command
from genviews_core.device import resolve_device

Row = tuple[str, ...]

COLUMNS = {
    "step": (
        *("method", "backbone", "precision", "ours, pairs/s", "lightly, pairs/s", "ratio", "to lightly's default"),
        *("MFU", "ours, GB", "lightly, GB"),
    ),
    "augmentation": (
        *("px", "ours, images/s", "torchvision PIL", "torchvision tensor", "kornia", "to torchvision", "to kornia"),
    ),
    "views": ("generator", "work", "batch", "images/s", "ms an image", "peak, GB", "beside"),
    "keys": ("step", "seconds", "MB"),
    "quality": ("scorer", "ms a step", "of the step", "rank correlation with exact"),
    "loader": (
        *("work", "records, raw", "records, jpeg", "folders", "torchvision", "lightly", "FFCV's Loader"),
        *("raw to torchvision", "jpeg to torchvision"),
    ),
    "trainings": ("side", "work", "images/s", "by the clock", "to LightlyTrain", "start, s", "peak, MB"),
    "eval": ("work", "ours, s", "lightly, s", "scikit-learn, s", "to lightly", "to scikit-learn"),
}


@command
def main() -> None:
    """Run the named benchmark and print its table."""
    measures = {
        "step": step,
        "augmentation": augmentation,
        "views": views,
        "keys": keys,
        "quality": quality,
        "loader": loader,
        "trainings": trainings,
        "eval": evaluation,
    }
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in measures:
        raise SystemExit(__doc__)
    device, rows = measures[name]([word for word in arguments if word != "--lines"])
    if "--lines" in arguments:
        for row in rows:
            print(json.dumps(dict(zip(COLUMNS[name], row, strict=True))), flush=True)
        return
    machine = torch.cuda.get_device_name() if device != "cpu" else f"{torch.get_num_threads()} CPU threads"
    table = Table(*COLUMNS[name], title=f"{machine}, {platform.machine()}, torch {torch.__version__}")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


# Imports are local, because only some benchmarks need the baselines.


def step(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per method and precision."""
    from benchmarks.throughput.step import StepBenchmark, measure_steps

    options = tyro.cli(StepBenchmark, args=arguments, prog="step")
    return str(resolve_device(options.device)), measure_steps(options)


def augmentation(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per size."""
    from benchmarks.throughput.augmentation import AugmentationBenchmark, measure_augmentation

    options = tyro.cli(AugmentationBenchmark, args=arguments, prog="augmentation")
    return str(resolve_device(options.device)), measure_augmentation(options)


def views(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per generator, kind of work and batch size."""
    from benchmarks.throughput.views import ViewsBenchmark, measure_views

    options = tyro.cli(ViewsBenchmark, args=arguments, prog="views")
    return str(resolve_device(options.device)), measure_views(options)


@dataclass(frozen=True, kw_only=True)
class KeysBenchmark:
    """Seconds and memory of listing images, resuming a finished run, merging its journal, and verifying.

    Attributes:
        count: number of images, each with one view.
    """

    count: int = 1_000_000


def keys(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per step."""
    from benchmarks.throughput.keys import measure_keys

    measured = measure_keys(tyro.cli(KeysBenchmark, args=arguments, prog="keys").count)
    return "cpu", [(each.step, f"{each.seconds:.1f}", f"{each.megabytes:.0f}") for each in measured]


def quality(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per scorer."""
    from benchmarks.throughput.quality import QualityBenchmark, measure_quality

    options = tyro.cli(QualityBenchmark, args=arguments, prog="quality")
    return str(resolve_device(options.device)), measure_quality(options)


def loader(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, and a row per kind of work and size."""
    from benchmarks.throughput.loader import LoaderBenchmark, measure_loaders

    options = tyro.cli(LoaderBenchmark, args=arguments, prog="loader")
    return str(resolve_device(options.device)), measure_loaders(options)


def trainings(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """The device, and a row for each side."""
    from benchmarks.throughput.trainings import LightlyTrainBenchmark, measure_trainings

    return "cpu", measure_trainings(tyro.cli(LightlyTrainBenchmark, args=arguments, prog="trainings"))


def evaluation(arguments: Sequence[str]) -> tuple[str, Iterable[Row]]:
    """Return the device, a row for kNN and a row for the probe."""
    from benchmarks.throughput.evaluation import EvaluationBenchmark, measure_evaluation

    options = tyro.cli(EvaluationBenchmark, args=arguments, prog="eval")
    return str(resolve_device(options.device)), measure_evaluation(options)


if __name__ == "__main__":
    main()
