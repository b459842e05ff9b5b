"""Effect of pair weights on the encoder: every scorer with every gamma, compared with equal weights."""

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
    """kNN and linear accuracy with and without pair weights; a repeated call continues."""

    data: Path
    """Folder of training images with one subfolder per class; classes are used only for evaluation."""
    test: Path
    """Such a folder of test images."""
    views: Path | None = None
    """Synthetic views; without them, a pair is two crops of one image."""
    pca: Path | None = None
    """For exact: file written by `pairquality fit`."""
    encoder: str | None = None
    """For exact: encoder of the PCA, if it is no longer where `pairquality fit` found it."""
    scorer: Path | None = None
    """For distilled: file written by `pairquality distill`."""
    recipe: str = "small-dino"
    epochs: int = 20
    scorers: tuple[Scorer, ...] = ("exact", "distilled", "self")
    gammas: tuple[float, ...] = (1.0, 5.0, 20.0)
    seeds: int = 3
    """Number of encoders trained for each row."""
    out: Path = Path("runs/quality")
    device: str = "auto"


@dataclass(frozen=True)
class Cell:
    """A scorer and a gamma."""

    quality: Scorer | Literal["none"] = "none"
    gamma: float = 0.0

    @property
    def name(self) -> str:
        """Name of the row in the table."""
        return "equal weights" if self.quality == "none" else f"{self.quality}, gamma {self.gamma:g}"

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return self.name.replace(",", "").replace(" ", "-")


def cells(options: QualityAblation) -> list[Cell]:
    """Return equal weights, then every scorer with every gamma."""
    return [Cell(), *(Cell(scorer, gamma) for scorer in options.scorers for gamma in options.gammas)]


def measure_quality(options: QualityAblation) -> Iterator[str]:
    """Train and evaluate one encoder after the other, all cells of a seed before the next seed.

    Results are appended to OUT/results.jsonl.

    Yields:
        The name of each cell after its results were written.

    Raises:
        ValueError: a run failed; the message has the last line of its output.
    """
    for seed in range(options.seeds):
        for cell in cells(options):
            folder = options.out / cell.folder / f"seed-{seed}"
            train(options, cell, seed, folder)
            measure(options, cell, seed, folder)
            yield cell.name


def train(options: QualityAblation, cell: Cell, seed: int, folder: Path) -> None:
    """Run `apps/pretrain`, which continues an interrupted run and does not repeat a finished one."""
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
    """Evaluate one encoder and append the results, unless they exist."""
    path = options.out / "results.jsonl"
    accuracies = measure_accuracies(
        folder / "backbone",
        name=cell.name,
        seed=seed,
        data=options.data,
        test=options.test,
        results=path,
        device=options.device,
        needed=ACCURACIES | ({("pairs", "quality")} if _weight_log(folder) else set()),
    )
    if accuracies:
        append_results(path, [*accuracies, *_of_weights(folder, accuracies[0])])


def _weight_log(folder: Path) -> list[dict]:
    """Return the lines of the log with statistics of weights."""
    return [row for row in sslzoo.read_log(folder / "log.jsonl") if "quality" in row]


def _of_weights(folder: Path, like: Result) -> list[Result]:
    """Return the means of quality and effective sample size over the log of a run."""
    rows = _weight_log(folder)
    if not rows:
        return []
    about = replace(like, task="pairs", seconds=0.0)
    effective, quality = (mean(row[name] for row in rows) for name in ("effective_share", "quality"))
    return [
        replace(about, metric="effective sample", protocol="% of the batch", value=100 * effective),
        replace(about, metric="quality", protocol="x 100", value=100 * quality),
    ]


def quality_table(options: QualityAblation) -> Table:
    """Return a table of OUT/results.jsonl with one row per cell: mean and standard deviation over seeds."""
    return tabulate(read_results(options.out / "results.jsonl"))
