"""Compute a table of a paper: each encoder is a run of apps/pretrain, each accuracy a run of apps/evaluate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.ablations import run_app
from benchmarks.ablations.grids import Grid, Row
from genviews_core.files import atomic_write
from ssl_eval import GridCell, GridOptions, Table, data_name, missing_cells, read_results


@dataclass(frozen=True, kw_only=True)
class PaperTable(GridOptions):
    """Options of all tables; the same command continues an interrupted run."""

    HEADING: ClassVar[str]
    """Name of the first column."""
    GRIDS: ClassVar[Mapping[str, Grid]]
    """The table at the paper's size and at other sizes."""

    grid: str
    rows: tuple[str, ...] = ()
    """Rows to train; all by default. Machines that share --out may share the rows."""
    epochs: int | None = None
    """Epochs of pretraining; default: those of the grid."""
    seeds: int = 1
    """Number of encoders trained for each row."""
    out: Path = Path("runs/ablations")
    """Runs and results are written to OUT/<table>/<recipe>, including results.jsonl and the table as Markdown. Give
    another folder for other views of the same images."""

    def inputs(self) -> Mapping[str, Path | None]:
        """Return the files and folders of the user, by the names that rows refer to."""
        raise NotImplementedError

    def labels(self, cell: GridCell) -> list[str]:
        """Return the arguments of apps/evaluate that select the labeled images."""
        return []

    def chosen(self) -> Grid:
        """Return the grid.

        Raises:
            ValueError: there is no such grid.
        """
        if self.grid not in self.GRIDS:
            raise ValueError(f"expected a grid {', '.join(self.GRIDS)}, got {self.grid!r}")
        return self.GRIDS[self.grid]

    @property
    def length(self) -> int | None:
        """Epochs of pretraining; None for the recipe's."""
        return self.epochs or self.chosen().epochs

    @property
    def folder(self) -> Path:
        """Folder of the runs and results of this recipe and length; grids that share it train a row only once."""
        size = self.chosen().recipe + (f"-{self.length}-epochs" if self.length else "")
        return self.out / _slug(type(self).__name__) / size


def selected_rows(options: PaperTable) -> list[Row]:
    """Return the rows to train.

    Raises:
        ValueError: the table has no such row.
    """
    rows = {row.name: row for row in options.chosen().rows}
    unknown = [name for name in options.rows if name not in rows]
    if unknown:
        raise ValueError(f"expected rows among {', '.join(map(repr, rows))}, got {unknown[0]!r}")
    return [rows[name] for name in options.rows or rows]


def fill_table(options: PaperTable) -> Iterator[str]:
    """Train and evaluate what has no result yet, all rows of a seed before the next seed.

    Yields:
        The row's name, after all of its results are present.

    Raises:
        ValueError: an input is missing, which is checked before anything is trained, or a run failed.
    """
    runs = [(seed, row) for seed in range(options.seeds) for row in selected_rows(options)]
    for seed, row in runs:
        _check_inputs(options, row, _missing(options, row, seed))
    for seed, row in runs:
        folder, missing = options.folder / _slug(row.name) / f"seed-{seed}", _missing(options, row, seed)
        if missing:
            _train(options, row, seed, folder)
        for cell in missing:
            _evaluate(options, cell, seed, folder)
        yield row.name


def paper_table(options: PaperTable) -> Table:
    """Tabulate published and own figures from the results alone; also written beside the results as Markdown."""
    results = read_results(options.folder / "results.jsonl")
    table = options.chosen().table(options.HEADING, results, data_name(options.test))
    atomic_write(options.folder / f"{options.grid}.md", table.markdown() + "\n")
    return table


def _missing(options: PaperTable, row: Row, seed: int) -> list[GridCell]:
    results, data = read_results(options.folder / "results.jsonl"), data_name(options.test)
    return missing_cells(options.chosen().cells(row), results, data=data, seed=seed)


def _check_inputs(options: PaperTable, row: Row, missing: list[GridCell]) -> None:
    for cell in missing:
        options.labels(cell)
    inputs = options.inputs()
    for name in row.files.values() if missing else ():
        path = inputs.get(name)
        if path is None:
            raise ValueError(f"expected {name} for {row.name!r}, got none; give it, or leave the row out with --rows")
        if not path.exists():
            raise ValueError(f"expected a file or folder for {name}, got {path}, which does not exist; check the path")


def _train(options: PaperTable, row: Row, seed: int, folder: Path) -> None:
    inputs = options.inputs()
    values = {"data": options.train, "out": folder, "seed": seed, "device": options.device, "workers": options.workers}
    values |= {"epochs": options.length} if options.length else {}
    values |= {**row.options} | {option: inputs[name] for option, name in row.files.items()}
    arguments: list[object] = [options.chosen().recipe]
    for name, value in values.items():
        arguments += [f"--{name}", *(value if isinstance(value, tuple) else (value,))]
    log = folder / "pretrain.txt"
    run_app.run(run_app.PRETRAIN, arguments, f"{row.name}, seed {seed}", log=log, processes=options.processes)


def _evaluate(options: PaperTable, cell: GridCell, seed: int, folder: Path) -> None:
    results, resume = options.folder / "results.jsonl", options.folder / "resume"
    arguments = options.evaluation(cell, folder / "backbone", results=results, resume=resume, seed=seed)
    name, log = f"{cell.encoder}, {cell.protocol}", folder / f"{cell.variant.name}.txt"
    run_app.run(run_app.EVALUATE, [*arguments, *options.labels(cell)], name, log=log, processes=options.processes)


def _slug(name: str) -> str:
    """Return a folder name: "ViewProbability" and "constant 200" become view-probability and constant-200."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    return re.sub(r"[^a-z0-9.]+", "-", apart.replace("%", "-percent")).strip("-")
