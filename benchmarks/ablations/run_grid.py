"""Filling a table of a paper: each encoder is a run of apps/pretrain, each accuracy one of apps/evaluate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.ablations import run_app
from benchmarks.ablations.grids import Grid, Row
from genviews_core.files import atomic_write
from ssl_eval import Cell, Table, data_name, read_results, unmeasured


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """What every table of a paper is told; started again, it goes on where it stopped."""

    HEADING: ClassVar[str]
    """Of the rows."""
    GRIDS: ClassVar[Mapping[str, Grid]]
    """The table at the paper's size and at others."""

    train: Path
    """Folder of training images, one folder a class, which only the evaluation reads."""
    test: Path
    """The same of test images."""
    grid: str
    rows: tuple[str, ...] = ()
    """Train these rows alone; left out, all. Machines that share --out may share the rows."""
    epochs: int | None = None
    """Of the pretraining, instead of the grid's."""
    seeds: int = 1
    """Encoders trained for each row."""
    out: Path = Path("runs/ablations")
    """Runs and results go to OUT/<table>/<recipe>, results.jsonl and the table as Markdown among them. For other views
    of the same images give another."""
    processes: int = 1
    """Of each training and measurement, a GPU each."""
    workers: int = 0
    """Processes that decode images, for each of those."""
    device: str = "auto"

    def given(self) -> Mapping[str, Path | None]:
        """What the user gave, by the names that rows ask for it."""
        raise NotImplementedError

    def labels(self, cell: Cell) -> list[str]:
        """Arguments of apps/evaluate that name the images with labels."""
        return []

    def chosen(self) -> Grid:
        """The grid.

        Raises:
            ValueError: there is no such grid.
        """
        if self.grid not in self.GRIDS:
            raise ValueError(f"no grid {self.grid!r}: choose one of {', '.join(self.GRIDS)}")
        return self.GRIDS[self.grid]

    @property
    def length(self) -> int | None:
        """Epochs of pretraining; None for the recipe's."""
        return self.epochs or self.chosen().epochs

    @property
    def folder(self) -> Path:
        """Of the runs and results of this recipe and length; grids of the same train a row of one name once."""
        size = self.chosen().recipe + (f"-{self.length}-epochs" if self.length else "")
        return self.out / _slug(type(self).__name__) / size


def wanted(options: PaperTable) -> list[Row]:
    """The rows to train.

    Raises:
        ValueError: one is asked for that the table does not have.
    """
    rows = {row.name: row for row in options.chosen().rows}
    unknown = [name for name in options.rows if name not in rows]
    if unknown:
        raise ValueError(f"no row {unknown[0]!r}: choose among {', '.join(map(repr, rows))}")
    return [rows[name] for name in options.rows or rows]


def fill(options: PaperTable) -> Iterator[str]:
    """Trains and measures what has no result yet, every row of a seed before the next seed.

    Yields:
        The row's name, once all of its results are there.

    Raises:
        ValueError: something is not there, which is told before anything is trained, or a run failed.
    """
    turns = [(seed, row) for seed in range(options.seeds) for row in wanted(options)]
    for seed, row in turns:
        _require(options, row, _missing(options, row, seed))
    for seed, row in turns:
        folder, missing = options.folder / _slug(row.name) / f"seed-{seed}", _missing(options, row, seed)
        if missing:
            _train(options, row, seed, folder)
        for cell in missing:
            _evaluate(options, cell, seed, folder)
        yield row.name


def paper_table(options: PaperTable) -> Table:
    """Published and ours, from the results alone; also written beside them."""
    results = read_results(options.folder / "results.jsonl")
    table = options.chosen().table(options.HEADING, results, data_name(options.test))
    atomic_write(options.folder / f"{options.grid}.md", table.markdown() + "\n")
    return table


def _missing(options: PaperTable, row: Row, seed: int) -> list[Cell]:
    """What is still to be measured, as the results stand now."""
    results, data = read_results(options.folder / "results.jsonl"), data_name(options.test)
    return unmeasured(options.chosen().cells(row), results, data=data, seed=seed)


def _require(options: PaperTable, row: Row, missing: list[Cell]) -> None:
    for cell in missing:
        options.labels(cell)
    given = options.given()
    for name in row.files.values() if missing else ():
        path = given.get(name)
        if path is None:
            raise ValueError(f"{row.name!r} needs {name}: give it, or leave the row out with --rows")
        if not path.exists():
            raise ValueError(f"{name}: there is nothing at {path}")


def _train(options: PaperTable, row: Row, seed: int, folder: Path) -> None:
    given = options.given()
    told = {"data": options.train, "out": folder, "seed": seed, "device": options.device, "workers": options.workers}
    told |= {"epochs": options.length} if options.length else {}
    told |= {**row.options} | {option: given[name] for option, name in row.files.items()}
    arguments: list[object] = [options.chosen().recipe]
    for name, value in told.items():
        arguments += [f"--{name}", *(value if isinstance(value, tuple) else (value,))]
    who, log = f"{row.name}, seed {seed}", folder / "pretrain.txt"
    run_app.run(run_app.PRETRAIN, arguments, who=who, log=log, processes=options.processes)


def _evaluate(options: PaperTable, cell: Cell, seed: int, folder: Path) -> None:
    told = {
        "name": cell.encoder,
        "train": options.train,
        "test": options.test,
        "results": options.folder / "results.jsonl",
        "resume": options.folder / "resume",
        "seed": seed,
        "device": options.device,
        "workers": options.workers,
    }
    arguments = [folder / "backbone", *(f"--{name}={value}" for name, value in told.items())]
    arguments += [*cell.variant.options, *options.labels(cell)]
    who, log = f"{cell.encoder}, {cell.protocol}", folder / f"{cell.variant.name}.txt"
    run_app.run(run_app.EVALUATE, arguments, who=who, log=log, processes=options.processes)


def _slug(name: str) -> str:
    """As a folder: "ViewProbability" and "constant 200" become view-probability and constant-200."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    return re.sub(r"[^a-z0-9.]+", "-", apart.replace("%", "-percent")).strip("-")
