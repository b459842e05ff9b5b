"""What is known of recipes beside their results: views per image, cost, or anything else that has a number."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ssl_eval.text_files import read_text

RECIPE, SERIES = "recipe", "series"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of recipes.

    Attributes:
        numbers: by column, then by recipe: {"views": {"one view": 1.0}}. A column is an axis of plots, and its name,
            with its unit, that axis' label.
        series: the line that a recipe's points belong to.
    """

    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    series: dict[str, str] = field(default_factory=dict)


def read_facts(path: Path, recipes: Collection[str]) -> Facts:
    """Facts from a CSV file: a column "recipe", perhaps "series", and columns of numbers; cells may be empty.

    Args:
        path: the file.
        recipes: those that have results.

    Raises:
        ValueError: no such file, no such column, a cell that is no number, a recipe twice or without a result.
    """
    if not path.is_file():
        raise ValueError(
            f"no facts at {path}: give a CSV file with the columns {RECIPE} and, for example, views and cost"
        )
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.DictReader(file)
        rows, header = list(reader), reader.fieldnames or []
    axes = [name for name in header if name not in (RECIPE, SERIES)]
    if RECIPE not in header or not axes:
        raise ValueError(f"{path} has the columns {', '.join(header) or 'none'}: it needs {RECIPE} and one of numbers")
    facts = Facts(numbers={axis: {} for axis in axes})
    seen = set()
    for line, row in enumerate(rows, start=2):
        recipe = row[RECIPE]
        if recipe in seen or recipe not in recipes:
            why = "stands there twice" if recipe in seen else f"has no result; there is {', '.join(sorted(recipes))}"
            raise ValueError(f"{path}, line {line}: the recipe {recipe!r} {why}")
        seen.add(recipe)
        if row.get(SERIES):
            facts.series[recipe] = row[SERIES]
        for axis in axes:
            if row[axis]:
                facts.numbers[axis][recipe] = _number(row[axis], f"{path}, line {line}, {axis}")
    return facts


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {text!r} is no number")
    return value
