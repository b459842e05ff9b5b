"""Measure the training time to 80% and 85% kNN (k = 20) accuracy on CIFAR-10 with a ResNet-18 from scratch.

The time includes augmentation. Reading the images, capturing the CUDA graph and measuring kNN are not included and are
reported separately.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cuda_graphs import tune
from benchmarks.gpu.images import read_data
from benchmarks.gpu.pretraining import Pretraining, Recipe, accuracies
from benchmarks.gpu.records import Recorder
from benchmarks.gpu.trial import sizes


@dataclass(frozen=True, kw_only=True)
class SpeedRun:
    """Measure the seconds to given accuracies."""

    data: str = "cifar10"
    epochs: int = 60
    """Length of the schedule."""
    marks: tuple[float, ...] = (80.0, 85.0)
    """kNN top-1 accuracies in percent; training stops when all are reached."""
    every: int = 2
    """Measure kNN every so many epochs."""
    seed: int = 0
    minutes: float = 5.0
    """Time limit."""
    capture: bool = torch.cuda.is_available()
    """Run the step as a CUDA graph."""
    compile: bool = False
    """Use torch.compile; compilation is not part of the measured time."""
    results: Path = Path(__file__).resolve().parent / "results.jsonl"
    count: int | None = None
    """Use this many images of each split; default: all."""
    tiny: bool = False
    """Use a tiny network, for tests."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(options: SpeedRun) -> dict[float, float]:
    """Train, record a line for each mark and one at the end, and return the seconds to each mark."""
    tune(options.device)
    budget, record = Budget(options.minutes), Recorder(options.results, "speedrun")
    recipe = replace(sizes(options.tiny)[0], capture=options.capture, compile=options.compile)
    splits = read_data(options.data, recipe.size)
    train, test = (split.first(options.count).to(options.device) for split in splits)
    training = Pretraining(train, recipe, epochs=options.epochs, seed=options.seed)
    if options.compile:
        _compile(training, recipe)
    prepared, reached, best = budget.spent, {}, 0.0
    about = {"epochs": options.epochs, "seed": options.seed, "compile": options.compile, "capture": options.capture}

    def measure(epoch: int, backbone: nn.Module) -> bool:
        nonlocal best
        if epoch % options.every and epoch != options.epochs:
            return False
        found = accuracies(backbone, train, test, recipe, linear=False)["knn"]
        best = max(best, found)
        for mark in options.marks:
            if found >= mark and mark not in reached:
                reached[mark] = training.seconds
                record(f"to {mark:g}% kNN", about=about, seconds=training.seconds, epoch=epoch, knn=found)
        return len(reached) == len(options.marks) or not budget.left

    seconds = training.run(measure)
    times = {"seconds": seconds, "prepared": prepared, "whole": budget.spent}
    record("end", about=about, knn=best, **times, pairs_per_second=training.pairs_seen / max(seconds, 1e-9))
    return reached


def _compile(training: Pretraining, recipe: Recipe) -> None:
    """Run one step, so that torch.compile compiles before the measurement."""
    noise = torch.randn(training.batch, 3, recipe.size, recipe.size, device=training.device)
    training.step(noise, noise.flip(3))
