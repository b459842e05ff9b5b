"""Train encoders.

genviews pretrain                                       # same as genviews quickstart
genviews pretrain --list                                # the recipes
genviews pretrain RECIPE --data DIR [--views DIR]       # train an encoder
genviews pretrain --config runs/simsiam/config.json     # the options of an earlier run; further ones win
genviews pretrain RECIPE --help                         # options and defaults of a recipe
uv run apps/launch --standalone --nproc_per_node=8 apps/pretrain RECIPE --data DIR
uv run apps/launch --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST apps/pretrain RECIPE ...
                                                        # on each of 4 machines that share --data and --out

`uv run apps/pretrain` is the same command.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import tyro

from genviews.cli import quickstart
from genviews.pretraining.options import DataConfig, PretrainOptions
from genviews.recipes import RECIPES, get_recipe
from genviews.recipes.listing import show_recipes
from genviews.run_config import parse_options, recipe_of
from genviews.suggestions import suggest
from genviews_core.command import command


def default_options(recipe: str, images: Path = tyro.MISSING) -> PretrainOptions:
    """Return the options of a recipe before any is changed.

    Raises:
        ValueError: there is no such recipe.
    """
    return PretrainOptions(recipe=get_recipe(recipe), data=DataConfig(images=images), out=Path("runs") / recipe)


def parse_arguments(arguments: Sequence[str]) -> PretrainOptions:
    """Parse a recipe's name and its options.

    Raises:
        ValueError: the recipe is unknown; the message suggests similar names.
    """
    name, *options = arguments
    if name not in RECIPES:
        hint = suggest(name, ["quickstart", *RECIPES], otherwise="--list shows them")
        raise ValueError(f"expected quickstart or a recipe, got {name!r}; {hint}")
    return parse_options(
        PretrainOptions,
        options,
        job="pretrain",
        default=default_options(name),
        description=(inspect.getdoc(RECIPES[name]) or "").partition("\n\n")[0],
        prog=f"genviews pretrain {name}",
    )


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["-h"], ["--help"]):
        names = textwrap.fill(", ".join(RECIPES), width=100, break_on_hyphens=False)
        print(f"{__doc__}\nrecipes: {names}")
        return
    if arguments == ["--list"]:
        show_recipes(RECIPES)
        return
    recipe = recipe_of(arguments) if arguments[:1] and arguments[0].startswith("--config") else None
    arguments = [recipe, *arguments] if recipe else arguments
    if not arguments or arguments[0].startswith("-"):
        quickstart.main(arguments)
        return
    if arguments[0] == "quickstart":
        quickstart.main(arguments[1:])
        return
    options = parse_arguments(arguments)
    from genviews.pretraining.job import run

    run(options)
