"""Grids of evaluations: published figures, missing measurements, and the programs that run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genviews_core.device import resolve_device
from genviews_core.files import atomic_write
from ssl_eval.published import ProtocolOverride
from ssl_eval.results import Result, check_results, data_name, read_results
from ssl_eval.table import PublishedColumn, Table, tabulate_published


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One encoder under one protocol, with the published figures.

    Attributes:
        encoder: name of the row; results with this recipe belong to it.
        variant: the protocol.
        published: percent by metric ("top1", "top5"); None for a metric that is measured but not in the paper.
        suffix: appended to the variant's label in results, such as " k=20".
    """

    encoder: str
    variant: ProtocolOverride
    published: dict[str, float | None]
    suffix: str = ""

    @property
    def protocol(self) -> str:
        """The protocol in results."""
        return self.variant.label + self.suffix


def missing_cells(
    cells: Sequence[GridCell],
    results: Sequence[Result],
    *,
    data: str,
    seed: int = 0,
    backbones: Mapping[str, str] | None = None,
) -> list[GridCell]:
    """Return the cells of which at least one metric has no result on this data set with this seed.

    Args:
        cells: the cells of the grid.
        results: the results so far.
        data: name of the data set.
        seed: seed of the encoders' training.
        backbones: hash of the weights by encoder; results of other weights do not count.
    """
    hashes = backbones or {}
    present = {
        (result.recipe, result.protocol, result.metric)
        for result in results
        if (result.data, result.seed, result.backbone) == (data, seed, hashes.get(result.recipe, result.backbone))
    }
    return [
        cell for cell in cells if any((cell.encoder, cell.protocol, metric) not in present for metric in cell.published)
    ]


def compare(cells: Sequence[GridCell], results: Sequence[Result], *, data: str) -> Table:
    """Tabulate a grid: a row per encoder; per protocol and metric, the published figure and ours (mean over seeds)."""
    published = {(cell.encoder, cell.protocol, name): value for cell in cells for name, value in cell.published.items()}
    encoders = list(dict.fromkeys(cell.encoder for cell in cells))
    ours: dict[tuple[str, str, str], dict[int, float]] = {}
    for result in results:
        if result.data == data:
            ours.setdefault((result.recipe, result.protocol, result.metric), {})[result.seed] = result.value
    columns = [
        PublishedColumn(
            title=f"{protocol} {metric}",
            published=[published.get((encoder, protocol, metric)) for encoder in encoders],
            ours=[ours.get((encoder, protocol, metric), {}) for encoder in encoders],
        )
        for protocol, metric in dict.fromkeys(key[1:] for key in published)
    ]
    return tabulate_published("encoder", encoders, columns, title="accuracy in percent")


def list_argument(cell: GridCell, lists: Path | None) -> list[str]:
    """Return the argument of the evaluation that names a list of labeled images; none if the cell needs none.

    Args:
        cell: the labels of its variant may be "list 1percent.txt".
        lists: the folder of such files.

    Raises:
        ValueError: the cell needs a list, and `lists` is None.
    """
    labels = cell.variant.labels or ""
    if not labels.startswith("list "):
        return []
    if lists is None:
        raise ValueError(f"expected the folder of SimCLR's lists for {cell.protocol}, got none; give it with --lists")
    return [f"--label-list={lists / labels.removeprefix('list ')}"]


def encoder_folders(pairs: Sequence[str], cells: Sequence[GridCell]) -> dict[str, str]:
    """Parse NAME=FOLDER arguments into the folder of each encoder.

    Raises:
        ValueError: an argument has another form, or its name is not the name of a row.
    """
    rows = dict.fromkeys(cell.encoder for cell in cells)
    folders = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if name not in rows or not folder:
            raise ValueError(f"expected an encoder NAME=FOLDER, NAME one of {', '.join(rows)}, got {pair!r}")
        folders[name] = folder
    return folders


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """Options of the programs that fill a grid."""

    train: Path
    """Folder of training images with one folder per class."""
    test: Path
    """Folder of test images with one folder per class."""
    grid: str
    processes: int = 1
    """Processes of each run, with one GPU each."""
    workers: int = 0
    """Worker processes that decode images, for each process."""
    device: str = "auto"

    def evaluation(self, cell: GridCell, folder: object, *, results: Path, resume: Path, seed: int) -> list[str]:
        """Return the arguments of apps/evaluate that measure a cell.

        Args:
            cell: the cell.
            folder: the encoder's backbone folder.
            results: the file of results.
            resume: the folder of resume files.
            seed: seed of the encoder's training.
        """
        options = {"name": cell.encoder, "train": self.train, "test": self.test, "results": results, "resume": resume}
        options |= {"workers": self.workers, "seed": seed, "device": self.device}
        return [str(folder), *(f"--{name}={value}" for name, value in options.items()), *cell.variant.options]


@dataclass(frozen=True, kw_only=True)
class EvalGrid(GridOptions):
    """A grid of evaluations of existing encoders."""

    encoders: tuple[str, ...]
    """NAME=FOLDER, where NAME is a row of the grid."""
    results: Path
    """One JSON line per result; the table of the grid is written to the same folder, as Markdown."""
    resume: Path
    grid: str = "imagenet"
    seed: int = 0

    def fill(
        self,
        grids: Mapping[str, Sequence[GridCell]],
        evaluate: Path,
        hash_of: Callable[[str], str],
        more: Callable[[GridCell], Sequence[str]] = lambda cell: (),
    ) -> Table:
        """Measure the missing cells of the given encoders, then tabulate.

        Args:
            grids: the grids by name.
            evaluate: the program that measures one cell.
            hash_of: returns the hash of the weights in an encoder's folder; results of other weights do not count.
            more: returns further arguments of the program.

        Raises:
            ValueError: there is no such grid, row or device, or a measurement failed.
        """
        if self.grid not in grids:
            raise ValueError(f"expected a grid {', '.join(grids)}, got {self.grid!r}")
        resolve_device(self.device)
        cells = grids[self.grid]
        folders = encoder_folders(self.encoders, cells)
        check_results(self.results)
        data, backbones = data_name(self.test), {name: hash_of(folder) for name, folder in folders.items()}
        results = read_results(self.results)
        for cell in missing_cells(cells, results, data=data, seed=self.seed, backbones=backbones):
            if cell.encoder in folders:
                arguments = self.evaluation(
                    cell, folders[cell.encoder], results=self.results, resume=self.resume, seed=self.seed
                )
                run_program(
                    evaluate, [*arguments, *more(cell)], f"{cell.encoder}, {cell.protocol}", processes=self.processes
                )
        table = compare(cells, read_results(self.results), data=data)
        atomic_write(self.results.with_name(f"{self.grid}.md"), table.markdown() + "\n")
        return table


def run_program(
    program: Path, arguments: Sequence[object], name: str, *, processes: int = 1, log: Path | None = None
) -> None:
    """Run a Python program to its end.

    Args:
        program: a folder with __main__.py, or a script.
        arguments: its arguments.
        name: name of the run, for the error message.
        processes: started by torchrun if there are several, with one GPU each.
        log: file for its output; None prints the command and the program's errors on stderr.

    Raises:
        ValueError: the program failed; with a log, the message includes its error line.
    """
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*launcher, str(program), *map(str, arguments)]
    if log is None:
        print(" ".join(command), file=sys.stderr)
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise ValueError(f"the program of {name} failed; see its message above")
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            failed = process.wait() != 0
        except KeyboardInterrupt:
            process.wait()  # it was interrupted as well, and saves its state
            raise
    if failed:
        raise ValueError(f"{name} failed: {_error_line(log)}")


def _error_line(log: Path) -> str:
    """Return the program's own error line, or the last line of the log and the log's path."""
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else f"{(lines or ['no output'])[-1]} (see {log})"
