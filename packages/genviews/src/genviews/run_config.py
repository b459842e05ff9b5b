"""config.json of a run, and --config FILE, which takes its values. Nothing here imports torch.

The file: {"job", "recipe" (of pretrain), "options": {name: value}, "command", "commit", "versions"}. A file written by
hand needs `options` alone.
"""

from __future__ import annotations

import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import tyro

from genviews.option_groups import parse_grouped
from genviews.overrides import from_keywords, override
from genviews_core.files import write_json

Options = TypeVar("Options")
NAME = "config.json"
PACKAGES = ("genviews", "torch", "torchvision", "timm", "numpy")
HELP = "--config FILE takes the options in the config.json of a run; options on the command line win."


def write_config(folder: Path, job: str, options: Any) -> None:
    """Write FOLDER/config.json: all options, versions, commit of the working directory and command line.

    To be called on the main process only.
    """
    recipe: Any = getattr(options, "recipe", None)
    content = {
        "job": job,
        **({} if recipe is None else {"recipe": recipe.name}),
        "options": plain_options(options),
        "command": shlex.join(sys.argv),
        "commit": _commit(),
        "versions": {"python": sys.version.split()[0]} | {name: _version(name) for name in PACKAGES},
    }
    write_json(folder / NAME, content)


def plain_options(options: Any) -> dict[str, Any]:
    """Return the options that can be set on the command line, as JSON values by the names of their fields."""
    found: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if "Fixed" in str(field.type):
            continue
        if is_dataclass(value):
            found = plain_options(value) | found
        else:
            found[field.name] = str(value) if isinstance(value, Path) else value
    return found


def take_config(arguments: Sequence[str], job: str) -> tuple[dict[str, Any], list[str]]:
    """Return the options in the file of --config, {} without one, and the other arguments.

    Raises:
        ValueError: the file cannot be read, or is of another job.
    """
    path, rest = _split(arguments)
    if path is None:
        return {}, rest
    content = _read(path)
    if content.get("job", job) != job:
        raise ValueError(f"expected a configuration of genviews {job}, got one of {content['job']} in {path}")
    values = content["options"].items()
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values}, rest


def recipe_of(arguments: Sequence[str]) -> str | None:
    """Return the recipe in the file of --config; None if there is none."""
    path, _ = _split(arguments)
    return None if path is None else _read(path).get("recipe")


def parse_options(
    kind: type[Options],
    arguments: Sequence[str],
    *,
    job: str,
    default: Options | None = None,
    description: str | None = None,
    prog: str | None = None,
) -> Options:
    """Parse a command line with --config by tyro.

    Args:
        kind: dataclass of the options; its help is in groups (see `genviews.option_groups`).
        arguments: the command line.
        job: name of the job.
        default: default options, for a dataclass of dataclasses.
        description: help text; default: the docstring of `kind`.
        prog: name of the command; default: "genviews JOB".

    Raises:
        ValueError: an option is unknown, or the file of --config cannot be read or has an unknown option.
    """
    values, rest = take_config(arguments, job)
    if values and default is not None:
        default = override(default, values, job=job)
    elif values:
        required = [field.name for field in fields(kind) if _is_required(field)]  # pyright: ignore[reportArgumentType]
        default = from_keywords(kind, dict.fromkeys(required, tyro.MISSING) | values, job=job)
    text = f"{(description or inspect.getdoc(kind) or '').strip()}\n\n{HELP}"
    return parse_grouped(kind, rest, prog=prog or f"genviews {job}", description=text, default=default)


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _split(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    rest, path = list(arguments), None
    for place, word in enumerate(rest):
        if word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] if "=" in word else "".join(rest[place + 1 : place + 2])
            if not value:
                raise ValueError("expected a file after --config, got none; give the config.json of a run")
            path = Path(value)
            del rest[place : place + (1 if "=" in word else 2)]
            break
    return path, rest


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads((path / NAME if path.is_dir() else path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); give the config.json of a run") from error
    if not isinstance(content, dict) or not isinstance(content.get("options"), dict):
        raise ValueError(f'expected {{"options": {{...}}}} in {path}; give the config.json of a run')
    return content


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
