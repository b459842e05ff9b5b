"""Seconds of training to an accuracy: kNN (k 20) of 80% and 85% on CIFAR-10's test images, by ResNet-18 from scratch.

The clock runs while the encoder trains, augmentation included; what is left out (reading the images, recording the
step, measuring kNN) is reported beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from budget import Budget
from cuda_graphs import tune
from images import read_data
from pretraining import Pretraining, Recipe, accuracies
from records import Recorder
from trial import sizes


@dataclass(frozen=True, kw_only=True)
class SpeedRun:
    """Seconds to an accuracy."""

    data: str = "cifar10"
    epochs: int = 60
    """Of the schedule: a longer one reaches more, later."""
    marks: tuple[float, ...] = (80.0, 85.0)
    """kNN top-1 in percent; the training ends at the last."""
    every: int = 2
    """Epochs from one look to the next."""
    seed: int = 0
    minutes: float = 5.0
    """After which it gives up."""
    capture: bool = torch.cuda.is_available()
    """Record a step as a CUDA graph."""
    compile: bool = False
    """torch.compile, which takes a while before the clock runs."""
    results: Path = Path(__file__).resolve().parent / "results.jsonl"
    count: int | None = None
    """So many training images; all without."""
    tiny: bool = False
    """A network that learns nothing, for a test."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(options: SpeedRun) -> dict[float, float]:
    """Train, look, and write a line for each mark and one at the end; seconds by mark."""
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

    def look(epoch: int, backbone: nn.Module) -> bool:
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

    seconds = training.run(look)
    times = {"seconds": seconds, "prepared": prepared, "whole": budget.spent}
    record("end", about=about, knn=best, **times, pairs_per_second=training.pairs_seen / max(seconds, 1e-9))
    return reached


def _compile(training: Pretraining, recipe: Recipe) -> None:
    """What torch.compile does at a first step, before the clock runs."""
    noise = torch.randn(training.batch, 3, recipe.size, recipe.size, device=training.device)
    training.step(noise, noise.flip(3))
