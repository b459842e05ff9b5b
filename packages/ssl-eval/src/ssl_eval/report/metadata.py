"""Metadata of recipes, such as views per image or cost, and the formatting of numbers in reports."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ssl_eval.table import Cell
from ssl_eval.text import read_text

RECIPE, SERIES = "recipe", "series"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, kw_only=True)
class RecipeMetadata:
    """Metadata of recipes, for the axes of plots.

    Attributes:
        values: by column, then by recipe: {"views": {"one view": 1.0}}. A column is an axis of plots, labeled by its
            name, which should include the unit.
        series: the series of each recipe; its points are joined by a line.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)


def read_metadata(path: Path, recipes: Collection[str]) -> RecipeMetadata:
    """Read metadata from a CSV file: a column "recipe", optionally "series", and numeric columns; cells may be empty.

    Args:
        path: the file.
        recipes: the recipes with results.

    Raises:
        ValueError: the file or a column is missing, a cell is not a number, or a recipe is repeated or has no result.
    """
    if not path.is_file():
        raise ValueError(
            f"expected a CSV file at {path}; give one with the columns {RECIPE} and, for example, views and cost"
        )
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.DictReader(file)
        rows, header = list(reader), reader.fieldnames or []
    axes = [name for name in header if name not in (RECIPE, SERIES)]
    if RECIPE not in header or not axes:
        names = ", ".join(header) or "none"
        raise ValueError(f"{path}: expected a column {RECIPE} and a numeric column, got the columns {names}")
    metadata = RecipeMetadata(values={axis: {} for axis in axes})
    seen = set()
    for line, row in enumerate(rows, start=2):
        recipe = row[RECIPE]
        if recipe in seen or recipe not in recipes:
            reason = "is repeated" if recipe in seen else f"has no result; choose from {', '.join(sorted(recipes))}"
            raise ValueError(f"{path}, line {line}: the recipe {recipe!r} {reason}")
        seen.add(recipe)
        if row.get(SERIES):
            metadata.series[recipe] = row[SERIES]
        for axis in axes:
            if row[axis]:
                metadata.values[axis][recipe] = _parse_number(row[axis], f"{path}, line {line}, {axis}")
    return metadata


def _parse_number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a number, got {text!r}")
    return value


def format_number(value: float) -> str:
    """Format an exact number in full, with a true minus sign: 4, 21.5, 116,000,000."""
    return f"{value:,.10g}".replace("-", MINUS)


def format_measured(value: float) -> str:
    """Format a measured value with two decimals, three below one, none for large numbers: 70.00, 0.431, 116,000,000."""
    decimals = 0 if abs(value) >= 10_000 else 2 if abs(value) >= 1 or value == 0 else 3
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def format_interval(cell: Cell) -> str:
    """Format the mean and its 95% confidence interval."""
    half = cell.half_width
    if half is None:
        return f"{format_measured(cell.mean)}, one seed"
    bounds = f"{format_measured(cell.mean - half)} to {format_measured(cell.mean + half)}"
    return f"{format_measured(cell.mean)}, 95% interval {bounds}, {len(cell.results)} seeds"
