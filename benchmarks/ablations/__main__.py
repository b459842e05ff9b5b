"""What a choice is worth: one part changed, everything else held.

uv run benchmarks/ablations sampling runs/first-light/generator --embeddings runs/first-light/embeddings \
    --encoder runs/first-light/vanilla/seed-0/backbone
"""

from __future__ import annotations

import sys

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sampling import COLUMNS, SamplingAblation, measure_sampling


def main() -> None:
    """Measure what is asked for and print the table; a user's mistake ends in one line."""
    chosen = tyro.extras.subcommand_cli_from_dict({"sampling": SamplingAblation}, description=__doc__)
    total = len(chosen.guidance) * (1 + 2 * len(chosen.steps))
    try:
        rows = list(track(measure_sampling(chosen), "painting", total, console=Console(stderr=True)))
    except ValueError as error:
        sys.exit(f"error: {error}")
    table = Table(*COLUMNS, title=f"distance to DDIM in {chosen.reference_steps} steps from the same noise")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
