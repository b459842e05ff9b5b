"""What a choice is worth: one part changed, everything else held.

uv run benchmarks/ablations sampling runs/first-light/generator --embeddings runs/first-light/embeddings \
    --encoder runs/first-light/vanilla/seed-0/backbone
uv run benchmarks/ablations learns --data TRAIN --test TEST [--views VIEWS] [--interpolated MIXED]
uv run benchmarks/ablations quality --data TRAIN --test TEST --views VIEWS --pca FILE --scorer FILE
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from learns import COLUMNS as LEARNING
from learns import LearnsAblation, arms, below_margin, learning_rows, measure_learning
from quality import QualityAblation, cells, measure_quality, quality_table
from sampling import COLUMNS, SamplingAblation, measure_sampling


def sampling(chosen: SamplingAblation) -> Table:
    """Distances of views in few steps, a row a sampler and number of steps."""
    total = len(chosen.guidance) * (1 + 2 * len(chosen.steps))
    rows = list(track(measure_sampling(chosen), "painting", total, console=Console(stderr=True)))
    title = f"distance to DDIM in {chosen.reference_steps} steps from the same noise"
    return _table(title, COLUMNS, rows)


def quality(chosen: QualityAblation) -> Table:
    """Accuracies, a row a scorer and gamma."""
    total = chosen.seeds * len(cells(chosen))
    list(track(measure_quality(chosen), "encoders", total, console=Console(stderr=True)))
    found = quality_table(chosen)
    return _table(f"{chosen.recipe}, {chosen.epochs} epochs", found.header, found.rows)


def learns(chosen: LearnsAblation) -> Table:
    """kNN of every small recipe beside that of the encoder it starts from."""
    list(track(measure_learning(chosen), "encoders", chosen.seeds * len(arms(chosen)), console=Console(stderr=True)))
    table = _table(f"{chosen.epochs} epochs of {chosen.data}", LEARNING, learning_rows(chosen))
    if below := below_margin(chosen):
        Console(width=140).print(table)
        raise ValueError(f"less than {chosen.margin:g} points above the untrained encoder: {'; '.join(below)}")
    return table


ABLATIONS: dict[str, tuple[type, Callable[[Any], Table]]] = {
    "sampling": (SamplingAblation, sampling),
    "quality": (QualityAblation, quality),
    "learns": (LearnsAblation, learns),
}


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def main() -> None:
    """Measure what is asked for and print the table; a user's mistake ends in one line."""
    options = {name: options for name, (options, _) in ABLATIONS.items()}
    chosen = tyro.extras.subcommand_cli_from_dict(options, description=__doc__)
    measure = next(measure for kind, measure in ABLATIONS.values() if isinstance(chosen, kind))
    try:
        table = measure(chosen)
    except ValueError as error:
        sys.exit(f"error: {error}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
