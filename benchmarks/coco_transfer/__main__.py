"""Fine-tune a Mask R-CNN from a backbone for detection and instance segmentation on COCO.

    uv run benchmarks/coco_transfer --backbone runs/moco/backbone --coco COCO --name "MoCo v2"
    uv run benchmarks/coco_transfer --backbone runs/moco/backbone --coco COCO --backend torchvision
    uv run torchrun --standalone --nproc_per_node=8 benchmarks/coco_transfer --backbone DIR --coco COCO --workers 4
    uv run benchmarks/coco_transfer --backbone DIR --coco MINI --schedule small

COCO has annotations/instances_train2017.json, train2017/ and the same of val2017. A training interrupted by SIGTERM or
Ctrl-C continues with the same command. Results of detectron2 and torchvision are not comparable, nor are those of two
variants; each has its own tables. ssl_eval.coco.config has the variants and schedules, with their sources.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

import ssl_eval
import sslzoo
from benchmarks.coco_transfer.grids import TASKS, cells
from benchmarks.coco_transfer.progress import TransferProgress
from genviews_core.command import command
from genviews_core.distributed import default_group
from genviews_core.files import atomic_write
from genviews_core.lock import lock_file
from ssl_eval.coco import (
    CocoInstances,
    DetectionConfig,
    Detectron2Backbone,
    average_precision,
    detect,
    detection_config,
    load_instances,
    train_mask_rcnn,
)


@dataclass(frozen=True, kw_only=True)
class CocoTransfer:
    """Options of one training and evaluation."""

    backbone: str
    """ResNet: a backbone folder, an official checkpoint, or timm/NAME."""
    coco: Path
    """Folder of COCO 2017."""
    backend: Literal["detectron2", "torchvision"] = "detectron2"
    variant: Literal["fpn", "fpn-heads", "c4"] = "fpn-heads"
    """Batch norm in backbone and FPN; in the heads too; MoCo's C4 (detectron2 only, published with 2x)."""
    schedule: Literal["1x", "2x", "small"] = "1x"
    """90,000 or 180,000 steps; small takes minutes on a CPU: by default 20 steps of small images."""
    iterations: int | None = None
    """Number of steps; the shape of the schedule stays the same."""
    batch_size: int | None = None
    """Images per step over all processes; default: 16. The learning rate is scaled with it."""
    learning_rate: float | None = None
    """Learning rate; default: 0.02 for 16 images."""
    short_edge: int | None = None
    """Short side in pixels for training and test; default: 640 to 800 and 800."""
    channels: int | None = None
    """Channels of pyramid and heads; default: 256."""
    rois_per_image: int | None = None
    """Sampled regions per image for the heads; default: 512."""
    train: str = "train2017"
    """Split for training."""
    test: str = "val2017"
    """Split for evaluation."""
    evaluator: Literal["faster-coco-eval", "pycocotools"] = "faster-coco-eval"
    name: str | None = None
    """Name of the row in the table; default: path of the backbone."""
    results: Path = Path("runs/coco_transfer/results.jsonl")
    """File to which one JSON line per result is appended; tables are written beside it as Markdown."""
    resume: Path | None = Path("runs/coco_transfer/resume")
    """Folder of resume files; None: no resume files."""
    save_every: int = 1000
    """Steps between two writes of the resume file."""
    seed: int = 0
    workers: int = 0
    """Processes that read images, per GPU."""
    device: str = "auto"
    bf16: bool = False
    """Use bfloat16 autocast; published results use float32."""


def run(options: CocoTransfer) -> dict[str, ssl_eval.Table]:
    """Train, evaluate, append the results, and return the tables of boxes and masks."""
    if options.save_every < 1:
        raise ValueError(f"expected --save-every of 1 step or more, got {options.save_every}; leave it out")
    context = sslzoo.init_distributed(os.environ, options.device)
    ssl_eval.check_results(options.results)
    recipe = _recipe(options)
    network, expected = sslzoo.resolve_backbone(options.backbone, channels=3)  # COCO's images are RGB
    mean, std = (tuple(255 * value for value in expected[name]) for name in ("mean", "std"))
    recipe = replace(recipe, mean=mean, std=std)
    train, test = (_open(options.coco, split) for split in (options.train, options.test))
    test.check_test()
    if train.categories != test.categories:
        raise ValueError(
            f"expected the same categories in {train.annotations} and {test.annotations}, got different ones; choose "
            "other splits"
        )
    protocol = f"{options.backend} {recipe.label}" + " bf16" * options.bf16
    started = time.perf_counter()
    figures = _measure(options, recipe, network, train, test, context, protocol)
    about = {
        "protocol": protocol,
        "backbone": sslzoo.backbone_hash(network),
        "data": _data_name(options),
        "seed": options.seed,
        "machine": ssl_eval.machine(),
        "seconds": time.perf_counter() - started,
        "recipe": options.name or options.backbone,
    }
    if context.is_main:
        results = [
            ssl_eval.Result(task=f"coco {task}", metric=metric, value=value, **about)
            for task, metrics in figures.items()
            for metric, value in metrics.items()
        ]
        ssl_eval.append_results(options.results, results)
    sslzoo.barrier()
    tables = _tables(options.results, protocol, about["data"], (options.train, options.test))
    if context.is_main:
        _show(tables, protocol, options.results.parent)
    return tables


SMALL = {"iterations": 20, "batch_size": 2, "short_edge": 96, "channels": 32, "rois_per_image": 32}


def _recipe(options: CocoTransfer) -> DetectionConfig:
    changed = ("iterations", "batch_size", "learning_rate", "short_edge", "channels", "rois_per_image")
    given = {name: value for name in changed if (value := getattr(options, name)) is not None}
    if options.schedule == "small":
        return detection_config(options.variant, "1x", **(SMALL | given))
    return detection_config(options.variant, options.schedule, **given)


def _data_name(options: CocoTransfer) -> str:
    """Return the name of the data set, with the splits if they are not the usual ones."""
    trained = "" if options.train == "train2017" else f" from {options.train}"
    return options.coco.resolve().name + ("" if options.test == "val2017" else f" {options.test}") + trained


def _open(coco: Path, split: str) -> CocoInstances:
    return load_instances(coco / "annotations" / f"instances_{split}.json", coco / split)


def _measure(
    options: CocoTransfer,
    recipe: DetectionConfig,
    network: torch.nn.Module,
    train: CocoInstances,
    test: CocoInstances,
    context: sslzoo.DistContext,
    protocol: str,
) -> dict[str, dict[str, float]]:
    """Return the results in percent by task and metric, on the main process only."""
    shared = {
        "recipe": recipe,
        "device": context.device,
        "amp": torch.bfloat16 if options.bf16 else None,
        "group": default_group(),
        "workers": options.workers,
    }
    resume = None
    if options.resume is not None:
        name = f"{ssl_eval.backbone_hash(network)[:12]} {protocol} {options.train} seed {options.seed}.pt"
        resume = options.resume / name.replace("/", "_")
    with sslzoo.StopSignal() as stop, lock_file(resume) if resume and context.is_main else nullcontext():
        progress = TransferProgress(recipe.iterations, context, stop)
        detector = train_mask_rcnn(
            _in_names_of(options.backend, network), train, backend=options.backend, seed=options.seed, resume=resume,
            save_every=options.save_every, save_now=progress.stop_requested,
            convert_sync_batchnorm=sslzoo.convert_sync_batchnorm, on_step=progress.step, **shared,
        )  # fmt: skip
        if progress.stop_requested():  # during precise batch norm
            progress.leave(recipe.iterations)
    found = detect(detector, test, on_image=progress.image, **shared)
    return average_precision(test.annotations, found, evaluator=options.evaluator) if context.is_main else {}


def _in_names_of(backend: str, network: torch.nn.Module) -> torch.nn.Module | Detectron2Backbone:
    if backend == "torchvision":
        return network
    return Detectron2Backbone(
        settings=sslzoo.detectron2_settings(network), weights=sslzoo.to_detectron2(network)["model"]
    )


def _tables(path: Path, protocol: str, data: str, halves: tuple[str, str]) -> dict[str, ssl_eval.Table]:
    """Return a table per task of all encoders with the same protocol and data."""
    results = [each for each in ssl_eval.read_results(path) if (each.protocol, each.data) == (protocol, data)]
    tables = {}
    for task in TASKS:
        ours = [each for each in results if each.task == f"coco {task}"]
        table = ssl_eval.compare(cells(protocol, task, [each.recipe for each in ours], halves=halves), ours, data=data)
        header = tuple(name.removeprefix(f"{protocol} ") for name in table.header)
        tables[task] = replace(table, header=header, title=f"{task} AP in percent, {protocol}")
    return tables


def _show(tables: dict[str, ssl_eval.Table], protocol: str, folder: Path) -> None:
    """Print the tables, and write them as Markdown beside the results."""
    for table in tables.values():
        Console(width=200).print(table)
    written = "\n".join(f"{table.title}\n\n{table.markdown()}\n" for table in tables.values())
    atomic_write(folder / f"{protocol}.md", written)


@command
def main() -> None:
    """Parse the command line and run; user errors are reported in one line."""
    options = tyro.cli(CocoTransfer, description=__doc__)
    try:
        run(options)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except sslzoo.TrainingInterrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(stopped if options.resume else "stopped; without --resume the training starts again", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command continues from the last saved step")


if __name__ == "__main__":
    main()
