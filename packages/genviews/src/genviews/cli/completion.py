"""Print a script that completes jobs, recipes, tasks, options and their choices in a shell.

genviews completion bash > ~/.local/share/bash-completion/completions/genviews
genviews completion zsh >> ~/.zshrc
eval "$(genviews completion bash)"                  # for this shell alone
"""

from __future__ import annotations

import shlex
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from genviews.cli import JOBS
from genviews.cli.pretrain import default_options
from genviews.embedding.options import EmbedOptions
from genviews.end_to_end.options import QuickstartOptions
from genviews.evaluation.tasks import TASKS
from genviews.generation import GenerateOptions
from genviews.generator_training import TrainGeneratorOptions
from genviews.inspection.options import InspectOptions
from genviews.option_groups import Option, options_of
from genviews.packing import PackOptions
from genviews.pretraining.options import PretrainOptions
from genviews.recipes import RECIPES
from genviews_core.command import command

SHELLS = ("bash", "zsh")
FLAT: dict[str, type[Any]] = {
    "quickstart": QuickstartOptions,
    "train-generator": TrainGeneratorOptions,
    "generate": GenerateOptions,
    "pack": PackOptions,
    "embed": EmbedOptions,
    "inspect": InspectOptions,
}
SCRIPT = """_genviews() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" job="${{COMP_WORDS[1]}}" words=""
    case "$job" in
        evaluate) case "$COMP_CWORD ${{COMP_WORDS[2]}}" in
            2\\ *) ;;
            *\\ {tasks}) job="evaluate ${{COMP_WORDS[2]}}" ;;
        esac ;;
    esac
    case "$COMP_CWORD $job $prev" in
        1\\ *) words={jobs} ;;
{choices}
        *) case "$cur" in
            -*) case "$job" in
{options}
            esac ;;
            *) case "$COMP_CWORD $job" in
                "2 pretrain") words={recipes} ;;
                "2 evaluate") words={names} ;;
                "2 completion") words={shells} ;;
            esac ;;
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _genviews genviews
"""
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(shell: str) -> str:
    """Return the script for bash or zsh."""
    options = {job: list(found) for job, found in _options_by_job()}
    flags = {job: [flag for option in found for flag in option.flags] for job, found in options.items()}
    script = SCRIPT.format(
        tasks="|*\\ ".join(TASKS),
        jobs=_words(JOBS),
        recipes=_words(["quickstart", *RECIPES]),
        names=_words(TASKS),
        shells=_words(SHELLS),
        options="\n".join(
            f'                "{job}") words={_words([*each, "--config", "--help"])} ;;' for job, each in flags.items()
        ),
        choices="\n".join(
            f'        *" {job} {flag}") words={_words(_choices(option.hint))} ;;'
            for job, found in options.items()
            for option in found
            for flag in option.flags
            if _choices(option.hint)
        ),
    )
    return ZSH + script if shell == "zsh" else script


def _options_by_job() -> Iterator[tuple[str, Sequence[Option]]]:
    yield "pretrain", options_of(PretrainOptions, default_options("small-simclr"))
    yield from ((job, options_of(kind)) for job, kind in FLAT.items())
    yield "evaluate", options_of(TASKS["classification"].options())
    yield from ((f"evaluate {name}", options_of(task.options())) for name, task in TASKS.items())


def _choices(hint: Any) -> list[str]:
    """Return the values of a Literal, also within Annotated, a union or a tuple."""
    if typing.get_origin(hint) is Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [value for inner in typing.get_args(hint) for value in _choices(inner)]


def _words(words: Any) -> str:
    return shlex.quote(" ".join(words))


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the script for the shell that is named."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
    elif given[0] not in SHELLS:
        raise ValueError(f"expected bash or zsh, got {given[0]!r}; give one of them")
    else:
        print(completion(given[0]), end="")
