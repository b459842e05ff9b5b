"""Encoders trained from scratch on one device, with the same number of steps, with and without views.

On a GPU, which one small network does not saturate, the variants run concurrently, each in its own process.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.cuda_graphs import tune
from benchmarks.gpu.images import Split
from benchmarks.gpu.pretraining import Pretraining, Recipe, accuracies
from benchmarks.gpu.records import Recorder

PROGRAM = Path(__file__).resolve().parent
PLAIN = "hand-made"
"""The variant without synthetic views."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training run and its evaluation.

    Attributes:
        name: "hand-made", or the name of the views.
        seed: seed of the training.
        epochs: length of the schedule.
    """

    name: str
    seed: int
    epochs: int

    def __str__(self) -> str:
        return f"{self.name}/{self.seed}"


def save_data(work: Path, train: Split, test: Split, views: dict[str, torch.Tensor]) -> None:
    """Save the decoded images and each kind of views for the variant processes."""
    for name, split in (("train", train), ("test", test)):
        torch.save(
            {"images": split.images.cpu(), "labels": split.labels.cpu(), "classes": list(split.classes)}, work / name
        )
    for name, images in views.items():
        torch.save(images.cpu(), work / f"views-{name}")


def load_split(path: Path, device: str) -> Split:
    """Load a split written by `save_data`."""
    kept = torch.load(path, weights_only=True)
    return Split(images=kept["images"], labels=kept["labels"], classes=tuple(kept["classes"])).to(device)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Settings shared by all variants.

    Attributes:
        work: folder written by `save_data`.
        recipe: training recipe.
        device: device of all variants.
        record: receives the results.
        about: facts about the views, added to each result.
        deadline: a value of time.monotonic().
    """

    work: Path
    recipe: Recipe
    device: str
    record: Recorder
    about: dict[str, Any]
    deadline: float


def run_variant(variant: Variant, bench: Bench) -> None:
    """Train and evaluate one variant, and record the result.

    Raises:
        TimeoutError: the training passed the deadline.
    """
    train, test = (load_split(bench.work / name, bench.device) for name in ("train", "test"))
    views = None if variant.name == PLAIN else torch.load(bench.work / f"views-{variant.name}", weights_only=True)
    views = None if views is None else views.to(bench.device)
    training = Pretraining(train, bench.recipe, epochs=variant.epochs, seed=variant.seed, views=views)
    seconds = training.run(deadline=bench.deadline)
    found = accuracies(training.method.backbone, train, test, bench.recipe)
    about = {
        "variant": variant.name,
        "seed": variant.seed,
        "epochs": variant.epochs,
        "images": len(train),
        **bench.about,
    }
    bench.record(f"variant {variant.name}", about=about, **found, seconds=seconds)


def run_variants(variants: Sequence[Variant], bench: Bench) -> list[Variant]:
    """Run the variants, concurrently on a GPU, and return those that finished in time."""
    if bench.device.startswith("cuda"):
        return _run_concurrently(variants, bench)
    done = []
    for variant in variants:
        try:
            run_variant(variant, bench)
            done.append(variant)
        except TimeoutError as error:
            bench.record(f"variant {variant.name} given up", about={"seed": variant.seed}, reason=str(error))
    return done


def _run_concurrently(variants: Sequence[Variant], bench: Bench) -> list[Variant]:
    torch.save({"about": bench.about, "recipe": asdict(bench.recipe)}, bench.work / "options")
    running = {}
    for variant in variants:
        words = ["--name", variant.name, "--seed", variant.seed, "--epochs", variant.epochs, "--work", bench.work]
        words += ["--results", bench.record.path, "--seconds", max(1.0, bench.deadline - time.monotonic())]
        command = [sys.executable, str(PROGRAM), "variant", *map(str, words), "--device", bench.device]
        running[variant] = subprocess.Popen(command)
    for variant, process in running.items():
        try:
            process.wait(timeout=max(0.1, bench.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode:
            reason = f"exit code {process.returncode}"
            bench.record(f"variant {variant.name} given up", about={"seed": variant.seed}, reason=reason)
    return [variant for variant, process in running.items() if process.returncode == 0]


@dataclass(frozen=True, kw_only=True)
class VariantProcess:
    """Options of the subprocess that trains one variant."""

    name: str
    seed: int
    epochs: int
    work: Path
    results: Path
    seconds: float
    device: str = "cuda"


def main(options: VariantProcess) -> None:
    """Train and evaluate the variant."""
    tune(options.device)
    kept = torch.load(options.work / "options", weights_only=True)
    bench = Bench(
        work=options.work,
        recipe=Recipe(**kept["recipe"]),
        device=options.device,
        record=Recorder(options.results, "evidence"),
        about=kept["about"],
        deadline=time.monotonic() + options.seconds,
    )
    run_variant(Variant(name=options.name, seed=options.seed, epochs=options.epochs), bench)
