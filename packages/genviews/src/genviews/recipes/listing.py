"""The recipes in one table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from genviews.recipes import Recipe

COLUMNS = ("recipe", "method", "data", "backbone", "epochs", "batch", "policy", "expected")
WIDE = 200


def recipe_table(recipes: Mapping[str, Callable[[], Recipe]]) -> Table:
    """One row a recipe; its text says where each constant is from."""
    caption = "expected: top-1 in percent, published or measured here; each recipe names the source of its constants"
    table = Table(*COLUMNS, title="recipes", caption=caption)
    for make in recipes.values():
        table.add_row(*_row(make()))
    return table


def _row(recipe: Recipe) -> tuple[str, ...]:
    policy = recipe.policy if recipe.view_probability == 1 else f"{recipe.policy} {recipe.view_probability:g}"
    what = (recipe.name, recipe.method, recipe.dataset, recipe.backbone)
    return (*what, str(recipe.epochs), str(recipe.batch_size), policy, recipe.expected)


def show_recipes(recipes: Mapping[str, Callable[[], Recipe]]) -> None:
    """Print the table: as wide as the terminal, or so that nothing breaks."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(recipe_table(recipes))
