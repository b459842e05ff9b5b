"""A whole training, images from disk to the step of the optimizer, beside LightlyTrain's, by one call on each side.

LightlyTrain is no dependency of this project, for its license (AGPL): --python is an interpreter that has it. Both
sides run by turns, each in a process of its own, on the same number of threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

PROGRAM = Path(__file__).with_name("one_training.py")


@dataclass(frozen=True, kw_only=True)
class LightlyTrainBenchmark:
    """Images per second and memory of SimCLR or DINO with torchvision's ResNet-18 at 224 px.

    Attributes:
        python: interpreter in whose environment lightly-train is installed.
        data: folder of images; at least one batch.
        method: training method of both.
        batch_size: images per step.
        steps: timed steps of each round, after a first one.
        rounds: rounds; in each, both sides train.
        threads: threads of each process.
        workers: processes that read images; with any, their processor time is not counted.
        precision: bf16 is autocast.
    """

    python: Path
    data: Path
    method: Literal["simclr", "dino"] = "simclr"
    batch_size: int = 32
    steps: int = 9
    rounds: int = 3
    threads: int = 1
    workers: int = 0
    precision: Literal["bf16", "float32"] = "bf16"


def measure_trainings(options: LightlyTrainBenchmark) -> Iterator[tuple[str, ...]]:
    """Yield a row per side: images/s by processor time and by the clock, start, memory; medians over all steps."""
    interpreters = {"genviews": sys.executable, "lightly_train": str(options.python)}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in interpreters}
    for _ in range(options.rounds):
        for side, python in interpreters.items():
            found[side].append(_train(side, python, options))
    seconds = {side: _medians(rounds) for side, rounds in found.items()}
    for side, (cpu, wall) in seconds.items():
        of_theirs = seconds["lightly_train"][0] / cpu
        start, peak = (median(each[name] for each in found[side]) for name in ("start", "peak_mb"))
        rates = f"{options.batch_size / cpu:.1f}", f"{options.batch_size / wall:.1f}"
        yield (
            side,
            f"{options.method}, {options.precision}",
            *rates,
            f"{of_theirs:.2f}x",
            f"{start:.1f}",
            f"{peak:,.0f}",
        )


def _medians(rounds: list[dict[str, Any]]) -> tuple[float, float]:
    cpu, wall = (median(step for each in rounds for step in each[name]) for name in ("cpu", "wall"))
    return cpu, wall


def _train(side: str, python: str, options: LightlyTrainBenchmark) -> dict[str, Any]:
    names = ("steps", "method", "batch_size", "threads", "workers", "precision")
    settings = json.dumps({name: getattr(options, name) for name in names})
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, str(PROGRAM), side, str(options.data.absolute()), f"{scratch}/out", settings]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=scratch, check=False)
    if done.returncode:
        raise ValueError(f"{side} cannot be timed; its last lines: {done.stderr.strip()[-600:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
