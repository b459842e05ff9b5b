"""How a command ends: in one line, said once, whoever reads it and however many processes say it."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

BROKEN_PIPE = 141
"""What shells report for a program whose reader has gone: 128 + SIGPIPE."""


def command(main: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a command's main function.

    A reader that goes away (`--help | head`) ends it without a word. What it exits with a line of text is printed by
    one of the processes that torchrun started, instead of by each.
    """

    @functools.wraps(main)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            try:
                return main(*arguments, **options)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _leave_quietly()
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                _leave_quietly()
            if isinstance(end.code, str) and not _is_first(end.code, os.environ):
                sys.exit(1)
            raise

    return run


def _leave_quietly() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
    sys.exit(BROKEN_PIPE)


def _is_first(message: str, environ: Mapping[str, str]) -> bool:
    """Whether no other process of this job on this machine has this message; a file beside torchrun's own keeps it."""
    error_file = environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file is None or environ.get("WORLD_SIZE", "1") == "1":
        return True
    name = hashlib.blake2b(message.encode(), digest_size=16).hexdigest()
    try:
        (Path(error_file).parents[1] / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
