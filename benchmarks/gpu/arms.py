"""Encoders trained from scratch on one device, with the same number of steps, with and without views.

On a GPU, which one small network does not saturate, the arms run concurrently, each in its own process.
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

from cuda_graphs import tune
from images import Split
from pretraining import Pretraining, Recipe, accuracies
from records import Recorder

PROGRAM = Path(__file__).resolve().parent
PLAIN = "hand-made"
"""The arm without synthetic views."""


@dataclass(frozen=True, kw_only=True)
class Arm:
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
    """Save the decoded images and each kind of views for the arm processes."""
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
    """Settings shared by all arms.

    Attributes:
        work: folder written by `save_data`.
        recipe: training recipe.
        device: device of all arms.
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


def run_arm(arm: Arm, bench: Bench) -> None:
    """Train and evaluate one arm, and record the result.

    Raises:
        TimeoutError: the training passed the deadline.
    """
    train, test = (load_split(bench.work / name, bench.device) for name in ("train", "test"))
    views = None if arm.name == PLAIN else torch.load(bench.work / f"views-{arm.name}", weights_only=True)
    views = None if views is None else views.to(bench.device)
    training = Pretraining(train, bench.recipe, epochs=arm.epochs, seed=arm.seed, views=views)
    seconds = training.run(deadline=bench.deadline)
    found = accuracies(training.method.backbone, train, test, bench.recipe)
    about = {"arm": arm.name, "seed": arm.seed, "epochs": arm.epochs, "images": len(train), **bench.about}
    bench.record(f"arm {arm.name}", about=about, **found, seconds=seconds)


def run_arms(arms: Sequence[Arm], bench: Bench) -> list[Arm]:
    """Run the arms, concurrently on a GPU, and return those that finished in time."""
    if bench.device.startswith("cuda"):
        return _run_concurrently(arms, bench)
    done = []
    for arm in arms:
        try:
            run_arm(arm, bench)
            done.append(arm)
        except TimeoutError as error:
            bench.record(f"arm {arm.name} given up", about={"seed": arm.seed}, reason=str(error))
    return done


def _run_concurrently(arms: Sequence[Arm], bench: Bench) -> list[Arm]:
    torch.save({"about": bench.about, "recipe": asdict(bench.recipe)}, bench.work / "options")
    running = {}
    for arm in arms:
        words = ["--name", arm.name, "--seed", arm.seed, "--epochs", arm.epochs, "--work", bench.work]
        words += ["--results", bench.record.path, "--seconds", max(1.0, bench.deadline - time.monotonic())]
        command = [sys.executable, str(PROGRAM), "arm", *map(str, words), "--device", bench.device]
        running[arm] = subprocess.Popen(command)
    for arm, process in running.items():
        try:
            process.wait(timeout=max(0.1, bench.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode:
            reason = f"exit code {process.returncode}"
            bench.record(f"arm {arm.name} given up", about={"seed": arm.seed}, reason=reason)
    return [arm for arm, process in running.items() if process.returncode == 0]


@dataclass(frozen=True, kw_only=True)
class ArmProcess:
    """Options of the subprocess that trains one arm."""

    name: str
    seed: int
    epochs: int
    work: Path
    results: Path
    seconds: float
    device: str = "cuda"


def main(options: ArmProcess) -> None:
    """Train and evaluate the arm."""
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
    run_arm(Arm(name=options.name, seed=options.seed, epochs=options.epochs), bench)
