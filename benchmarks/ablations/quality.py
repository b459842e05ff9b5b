"""What weights of pairs do to an encoder: every scorer at every gamma beside equal weights, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

import sslzoo
from benchmarks.ablations import run_app
from benchmarks.ablations.encoders import ACCURACIES, measure_accuracies
from ssl_eval import Result, Table, append_results, read_results, tabulate

Scorer = Literal["exact", "distilled", "self"]


@dataclass(frozen=True, kw_only=True)
class QualityAblation:
    """kNN and linear accuracy with and without weights of pairs; started again, it goes on where it stopped."""

    data: Path
    """Folder of training images, one folder a class, which only the evaluation reads."""
    test: Path
    """The same of test images."""
    views: Path | None = None
    """Synthetic views; without them a pair is two crops of one image."""
    pca: Path | None = None
    """For exact: what `pairquality fit` wrote."""
    encoder: str | None = None
    """For exact, where the PCA's encoder is not where it was."""
    scorer: Path | None = None
    """For distilled: what `pairquality distill` wrote."""
    recipe: str = "small-dino"
    epochs: int = 20
    scorers: tuple[Scorer, ...] = ("exact", "distilled", "self")
    gammas: tuple[float, ...] = (1.0, 5.0, 20.0)
    seeds: int = 3
    """Encoders trained for each row."""
    out: Path = Path("runs/quality")
    device: str = "auto"


@dataclass(frozen=True)
class Cell:
    """One way of weighing pairs."""

    quality: Scorer | Literal["none"] = "none"
    gamma: float = 0.0

    @property
    def name(self) -> str:
        """Of its row in the table."""
        return "equal weights" if self.quality == "none" else f"{self.quality}, gamma {self.gamma:g}"

    @property
    def folder(self) -> str:
        """Of its runs."""
        return self.name.replace(",", "").replace(" ", "-")


def cells(options: QualityAblation) -> list[Cell]:
    """Equal weights, then every scorer at every gamma."""
    return [Cell(), *(Cell(scorer, gamma) for scorer in options.scorers for gamma in options.gammas)]


def measure_quality(options: QualityAblation) -> Iterator[str]:
    """Trains and measures one encoder after the other, every cell of a seed before the next seed.

    OUT/results.jsonl holds what was measured.

    Yields:
        The cell's name, once its results are there.

    Raises:
        ValueError: a run failed; with the last line that it printed.
    """
    for seed in range(options.seeds):
        for cell in cells(options):
            folder = options.out / cell.folder / f"seed-{seed}"
            train(options, cell, seed, folder)
            measure(options, cell, seed, folder)
            yield cell.name


def train(options: QualityAblation, cell: Cell, seed: int, folder: Path) -> None:
    """Runs `apps/pretrain`, which goes on where it stopped and only checks a run that has ended."""
    command: list[object] = [options.recipe, "--data", options.data, "--out", folder]
    command += [
        "--epochs",
        options.epochs,
        "--seed",
        seed,
        "--device",
        options.device,
        "--pair-weighting",
        cell.quality,
    ]
    if cell.quality != "none":
        command += ["--gamma", cell.gamma]
    given = {"views": options.views, "pca": options.pca, "encoder": options.encoder, "scorer": options.scorer}
    needed = {"exact": ("views", "pca", "encoder"), "distilled": ("views", "scorer")}.get(cell.quality, ("views",))
    for name in needed:
        if given[name] is not None:
            command += [f"--{name}", given[name]]
    run_app.run(run_app.PRETRAIN, command, f"{cell.name}, seed {seed}", log=folder / "pretrain.txt")


def measure(options: QualityAblation, cell: Cell, seed: int, folder: Path) -> None:
    """Appends the results of one encoder, unless they are there."""
    path = options.out / "results.jsonl"
    accuracies = measure_accuracies(
        folder / "backbone",
        name=cell.name,
        seed=seed,
        data=options.data,
        test=options.test,
        results=path,
        device=options.device,
        needed=ACCURACIES | ({("pairs", "quality")} if _weighed(folder) else set()),
    )
    if accuracies:
        append_results(path, [*accuracies, *_of_weights(folder, accuracies[0])])


def _weighed(folder: Path) -> list[dict]:
    """The lines of a run's log that tell of weights."""
    return [row for row in sslzoo.read_log(folder / "log.jsonl") if "quality" in row]


def _of_weights(folder: Path, like: Result) -> list[Result]:
    """Means over the log of a run: quality and effective sample size of its batches."""
    rows = _weighed(folder)
    if not rows:
        return []
    about = replace(like, task="pairs", seconds=0.0)
    effective, quality = (mean(row[name] for row in rows) for name in ("effective_share", "quality"))
    return [
        replace(about, metric="effective sample", protocol="% of the batch", value=100 * effective),
        replace(about, metric="quality", protocol="x 100", value=100 * quality),
    ]


def quality_table(options: QualityAblation) -> Table:
    """A row a cell, from OUT/results.jsonl alone; mean and spread over the seeds."""
    return tabulate(read_results(options.out / "results.jsonl"))
