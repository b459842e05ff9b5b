"""Filling a grid: each measurement is a run of a program, and what has a result is not measured again."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genviews_core.device import resolve_device
from genviews_core.files import atomic_write
from ssl_eval.comparison import Cell, compare, named_folders, unmeasured
from ssl_eval.results import check_results, data_name, read_results
from ssl_eval.table import Table


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """What the programs of all grids are told."""

    train: Path
    test: Path
    encoders: tuple[str, ...]
    """NAME=FOLDER, the name a row of the grid."""
    results: Path
    """One JSON line a result; the table of a grid is written beside it, as Markdown."""
    resume: Path
    grid: str = "imagenet"
    processes: int = 1
    """Of each measurement, a GPU each."""
    workers: int = 0
    """Processes that decode images, for each of those."""
    seed: int = 0
    device: str = "auto"

    def fill(
        self,
        grids: Mapping[str, Sequence[Cell]],
        evaluate: Path,
        hash_of: Callable[[str], str],
        more: Callable[[Cell], Sequence[str]] = lambda cell: (),
    ) -> Table:
        """Measure what is missing of the encoders at hand, then tabulate.

        Args:
            grids: by name.
            evaluate: the program that measures one cell.
            hash_of: the hash of the weights in an encoder's folder; what was measured of others is measured anew.
            more: further arguments of it.

        Raises:
            ValueError: there is no such grid, row or device, or a measurement failed.
        """
        if self.grid not in grids:
            raise ValueError(f"no grid {self.grid!r}: choose one of {', '.join(grids)}")
        resolve_device(self.device)
        cells = grids[self.grid]
        folders = named_folders(self.encoders, cells)
        check_results(self.results)
        data, backbones = data_name(self.test), {name: hash_of(folder) for name, folder in folders.items()}
        results = read_results(self.results)
        for cell in unmeasured(cells, results, data=data, seed=self.seed, backbones=backbones):
            if cell.encoder in folders:
                command = [*self._command(cell, evaluate, folders[cell.encoder]), *more(cell)]
                print(" ".join(command), file=sys.stderr)
                if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                    raise ValueError(f"{cell.encoder}, {cell.protocol}: the evaluation failed; see above")
        table = compare(cells, read_results(self.results), data=data)
        atomic_write(self.results.with_name(f"{self.grid}.md"), table.markdown() + "\n")
        return table

    def _command(self, cell: Cell, evaluate: Path, folder: str) -> list[str]:
        launcher = [sys.executable]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        same = ("train", "test", "results", "resume", "workers", "seed", "device")
        arguments = [f"--{name}={getattr(self, name)}" for name in same]
        return [*launcher, str(evaluate), folder, f"--name={cell.encoder}", *arguments, *cell.variant.options]
