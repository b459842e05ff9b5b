"""The tables of few labels: every encoder at hand fine-tuned on 1% and 10%, beside the published figures.

uv run benchmarks/semi_supervised --grid imagenet --lists imagenet_subsets --train IMAGENET/train --test IMAGENET/val \
    --encoders "MoCo v2=runs/moco/backbone" "MoCo v2 + GenView=runs/genview/backbone" --processes 8
uv run benchmarks/semi_supervised --grid small --train CIFAR/train --test CIFAR/test \
    --encoders untrained=runs/untrained/backbone trained=runs/dino/backbone

Each measurement is a run of apps/evaluate. What has a result is not measured again; what was stopped goes on.
The table is also written beside the results, as Markdown.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

import ssl_eval
from grids import GRIDS
from ssl_eval import Cell

EVALUATE = Path(__file__).resolve().parent.parent.parent / "apps" / "evaluate"


@dataclass(frozen=True, kw_only=True)
class SemiSupervised:
    """A grid of fine-tunings."""

    train: Path
    test: Path
    encoders: tuple[str, ...]
    """NAME=FOLDER, the name a row of the grid."""
    grid: str = "imagenet"
    lists: Path | None = None
    """Folder of SimCLR's 1percent.txt and 10percent.txt, for the grid of ImageNet."""
    results: Path = Path("runs/semi-supervised/results.jsonl")
    resume: Path = Path("runs/semi-supervised/resume")
    processes: int = 1
    """Of each measurement, a GPU each."""
    workers: int = 0
    """Processes that decode images, for each of those."""
    seed: int = 0
    device: str = "auto"


def run(options: SemiSupervised) -> Table:
    """Measure what is missing, then tabulate."""
    if options.grid not in GRIDS:
        raise ValueError(f"no grid {options.grid!r}: choose one of {', '.join(GRIDS)}")
    cells = GRIDS[options.grid]
    folders = ssl_eval.named_folders(options.encoders, cells)
    data = options.test.parent.name or options.test.name
    missing = ssl_eval.unmeasured(cells, ssl_eval.read_results(options.results), data=data, seed=options.seed)
    for cell in missing:
        if cell.encoder in folders:
            command = evaluation(options, cell, folders[cell.encoder])
            print(" ".join(command), file=sys.stderr)
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                raise ValueError(f"{cell.encoder}, {cell.protocol}: the evaluation failed; see above")
    table = ssl_eval.compare(cells, ssl_eval.read_results(options.results), data=data)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".md").write_text(table.markdown() + "\n")
    return shown(table)


def evaluation(options: SemiSupervised, cell: Cell, folder: str) -> list[str]:
    """The command that measures."""
    launcher = [sys.executable]
    if options.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}"]
    same = ("train", "test", "results", "resume", "workers", "seed", "device")
    arguments = [f"--{name}={getattr(options, name)}" for name in same]
    labels = cell.variant.labels or ""
    if labels.startswith("list "):
        if options.lists is None:
            raise ValueError(f"{cell.protocol} needs a list: give the folder of SimCLR's lists with --lists")
        arguments.append(f"--list={options.lists / labels.removeprefix('list ')}")
    return [*launcher, str(EVALUATE), folder, f"--name={cell.encoder}", *arguments, *cell.variant.options]


def shown(table: ssl_eval.Table) -> Table:
    """The same for a terminal."""
    printed = Table(*table.header, title="accuracy in percent")
    for row in table.rows:
        printed.add_row(*row)
    return printed


if __name__ == "__main__":
    try:
        Console(width=160).print(run(tyro.cli(SemiSupervised, description=__doc__)))
    except ValueError as error:
        sys.exit(f"error: {error}")
