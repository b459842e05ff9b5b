"""Benchmarks that fit into minutes on one GPU.

uv run benchmarks/gpu checks --minutes 4              # tests, and speed beside other libraries
uv run benchmarks/gpu evidence --minutes 9 --data cifar10   # the effect of views on CIFAR-10, the whole loop
uv run benchmarks/gpu speedrun --data cifar10         # seconds to 80% and to 85% kNN
uv run benchmarks/gpu wheels --out .whl               # packages for a machine without network, see bare_machine.sh
uv run benchmarks/gpu table                           # the README's tables, from benchmarks/gpu/results.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import tyro

from genviews_core.command import command

# Imports are local: wheels and table do not need torch.


def checks(arguments: Sequence[str]) -> None:
    """Run the tests on the device, then the speed comparisons."""
    from benchmarks.gpu.checks import Checks, main

    main(tyro.cli(Checks, args=arguments, prog="checks"))


def evidence(arguments: Sequence[str]) -> None:
    """Run the whole loop with and without views."""
    from benchmarks.gpu.evidence import Evidence, main

    main(tyro.cli(Evidence, args=arguments, prog="evidence"))


def speedrun(arguments: Sequence[str]) -> None:
    """Measure the seconds to a given accuracy."""
    from benchmarks.gpu.speedrun import SpeedRun, main

    main(tyro.cli(SpeedRun, args=arguments, prog="speedrun"))


def wheels(arguments: Sequence[str]) -> None:
    """Download a folder of wheels."""
    from benchmarks.gpu.wheels import Wheels, main

    main(tyro.cli(Wheels, args=arguments, prog="wheels"))


def table(arguments: Sequence[str]) -> None:
    """Print Markdown tables of the results."""
    from benchmarks.gpu.table import Tables, main

    main(tyro.cli(Tables, args=arguments, prog="table"))


def trial(arguments: Sequence[str]) -> None:
    """Measure speeds; started by `evidence` as a subprocess."""
    from benchmarks.gpu.trial import Trial, main

    main(tyro.cli(Trial, args=arguments, prog="trial"))


def variant(arguments: Sequence[str]) -> None:
    """Train one variant; started by `evidence` as a subprocess."""
    from benchmarks.gpu.variants import VariantProcess, main

    main(tyro.cli(VariantProcess, args=arguments, prog="variant"))


PARTS: dict[str, Callable[[Sequence[str]], None]] = {
    each.__name__: each for each in (checks, evidence, speedrun, wheels, table, trial, variant)
}


@command
def main() -> None:
    """Run the named part; user errors are reported in one line."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in PARTS:
        raise SystemExit(__doc__)
    PARTS[name](arguments)


if __name__ == "__main__":
    main()
