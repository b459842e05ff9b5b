"""The recipes in one table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from genviews.recipes import Recipe

COLUMNS = ("recipe", "backbone", "epochs", "batch", "expected")
WIDE = 110


def recipe_table(recipes: Mapping[str, Callable[[], Recipe]]) -> Table:
    """Return one row per recipe, which is named after its data set and method."""
    table = Table(*COLUMNS, box=None, pad_edge=False, caption="expected: top-1 in percent, published or measured here")
    for make in recipes.values():
        recipe = make()
        table.add_row(recipe.name, recipe.backbone, str(recipe.epochs), str(recipe.batch_size), recipe.expected)
    return table


def show_recipes(recipes: Mapping[str, Callable[[], Recipe]]) -> None:
    """Print the table: as wide as the terminal, or so that no row is broken."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(recipe_table(recipes))
