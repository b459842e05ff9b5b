"""Table of all recipes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from genviews.recipes import Recipe

COLUMNS = ("recipe", "backbone", "epochs", "batch", "expected")
WIDTH = 110
"""Columns of the table if the output is not a terminal."""


def recipe_table(recipes: Mapping[str, Callable[[], Recipe]]) -> Table:
    """Return a table with one row per recipe, whose name has the data set and the method."""
    table = Table(*COLUMNS, box=None, pad_edge=False, caption="expected: top-1 in percent, published or measured here")
    for make in recipes.values():
        recipe = make()
        table.add_row(recipe.name, recipe.backbone, str(recipe.epochs), str(recipe.batch_size), recipe.expected)
    return table


def show_recipes(recipes: Mapping[str, Callable[[], Recipe]]) -> None:
    """Print the table at the width of the terminal, or without line breaks if the output is not one."""
    Console(width=None if sys.stdout.isatty() else WIDTH).print(recipe_table(recipes))
