"""Train encoders.

uv run apps/pretrain                                       # the whole loop on procedural scenes, on any machine
uv run apps/pretrain loop --data TRAIN --test TEST         # the same on your own images
uv run apps/pretrain --list                                # the recipes
uv run apps/pretrain RECIPE --data DIR [--views DIR]       # the real job
uv run apps/launch --standalone --nproc_per_node=8 apps/pretrain RECIPE --data DIR
uv run apps/launch --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST apps/pretrain RECIPE ...
                                                       # on each of 4 machines that share --data and --out
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from genviews.pretraining.data import Data
from genviews.pretraining.execution import Execution
from genviews.pretraining.job import train_encoder
from genviews.pretraining.pair_weighting import Scoring
from genviews.quickstart.options import Loop
from genviews.recipes import RECIPES, Recipe
from genviews.recipes.augmentations import Operation, without
from genviews.recipes.listing import show_recipes
from genviews_core.command import command
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress
from sslzoo import DistContext, TrainingInterrupted, init_distributed


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """One encoder by one recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: Annotated[Data, tyro.conf.arg(name="")]
    scoring: Annotated[Scoring, tyro.conf.arg(name="")]
    execution: Annotated[Execution, tyro.conf.arg(name="")]
    out: Path
    """Where the run goes: resume.pt, log.jsonl, TensorBoard events, backbone/."""
    without: tuple[Operation, ...] = ()
    """Leave these out of the recipe's augmentations."""
    device: str = "auto"
    checkpoint_seconds: float = 600.0


def run_recipe(pretrain: Pretrain, worker: DistContext) -> None:
    """Train with a progress bar, and say where the backbone is."""
    recipe = replace(pretrain.recipe, augmentation=without(pretrain.recipe.augmentation, pretrain.without))
    with Progress(shown=worker.is_main) as progress:
        backbone = train_encoder(
            recipe,
            pretrain.data,
            pretrain.out,
            worker,
            execution=pretrain.execution,
            scoring=pretrain.scoring,
            on_step=progress.add_task(recipe.name),
            on_message=progress.message,
            checkpoint_seconds=pretrain.checkpoint_seconds,
        )
        progress.message(f"backbone: {backbone}")
        if (pretrain.out / "gaps.json").exists():
            progress.message(f"some images or views were missing: see {pretrain.out / 'gaps.json'}")


QUIET = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.SuppressFixed)


def read_arguments(arguments: Sequence[str]) -> Loop | Pretrain:
    """Parse the command line. Only the options of the named recipe are parsed, so that errors refer to these.

    Raises:
        ValueError: the recipe is unknown; the message suggests similar names.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        return tyro.cli(Loop, args=arguments, prog="apps/pretrain", config=QUIET)
    name, *options = arguments
    if name == "loop":
        return tyro.cli(Loop, args=options, prog="apps/pretrain loop", config=QUIET)
    if name in RECIPES:
        about = _summary(RECIPES[name])
        default, prog = _default(name), f"apps/pretrain {name}"
        return tyro.cli(Pretrain, args=options, default=default, description=about, prog=prog, config=QUIET)
    if name in ("-h", "--help"):
        about = "Train encoders; without arguments, the whole loop."
        return tyro.cli(_subcommands(), args=arguments, default=Loop(), description=about, config=QUIET)
    near = " or ".join(difflib.get_close_matches(name, ["loop", *RECIPES], n=2))
    hint = f"did you mean {near}? --list shows all" if near else "--list shows them"
    raise ValueError(f"expected loop or a recipe, got {name!r}; {hint}")


def _default(name: str) -> Pretrain:
    return Pretrain(
        recipe=RECIPES[name](),
        data=Data(images=tyro.MISSING),
        scoring=Scoring(),
        execution=Execution(),
        out=Path("runs") / name,
    )


def _subcommands() -> Any:
    commands = [Annotated[Loop, tyro.conf.subcommand("loop")]]
    for name, recipe in RECIPES.items():
        made = tyro.conf.subcommand(name, default=_default(name), description=_summary(recipe))
        commands.append(Annotated[Pretrain, made])
    return Union[tuple(commands)]  # noqa: UP007 (made at run time)


def _summary(documented: object) -> str:
    """The first paragraph of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n\n")[0]


@command
def main() -> None:
    """Read the command line and run it; a user's mistake ends in one line."""
    if sys.argv[1:] == ["--list"]:
        return show_recipes(RECIPES)
    try:
        chosen = read_arguments(sys.argv[1:])
        worker = init_distributed(os.environ, chosen.device)
        with lock_folder(chosen.out) if worker.is_main else nullcontext():
            if isinstance(chosen, Pretrain):
                run_recipe(chosen, worker)
            elif isinstance(chosen, Loop):
                from genviews.quickstart.run import run_loop  # diffusers and matplotlib take seconds to import

                run_loop(chosen, worker)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except FloatingPointError as error:
        _leave(f"error: {error}", 1)
    except TrainingInterrupted as stopped:
        _leave(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def _leave(message: str, code: int) -> None:
    """End for a reason that all processes have; one of them says it."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
