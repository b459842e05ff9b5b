"""Exit of commands: one-line errors, printed once per machine under torchrun, and closed pipes."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from genviews_core.distributed import destroy_process_group

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PYTHON_FORMAT = warnings.formatwarning
BROKEN_PIPE = 141
"""Exit code that shells report for a program killed by SIGPIPE: 128 + SIGPIPE."""


class Interrupted(Exception):
    """Raised if a signal ends a job early, after its state was saved."""

    @property
    def exit_code(self) -> int:
        """Exit code of the command."""
        return 1


def command(main: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a command's main function.

    A ValueError, which stands for a user's mistake, a FloatingPointError, which stands for a non-finite loss,
    `Interrupted` and Ctrl-C end the command with one line. If it exits with an error message, only one of the processes
    started by torchrun prints it. If the reader of its output closes the pipe
    (`--help | head`), it exits without a message. A UserWarning is printed as one line, without the line of code that
    caused it.
    """

    @functools.wraps(main)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        default, warnings.formatwarning = warnings.formatwarning, _format_warning
        try:
            try:
                result = main(*arguments, **options)
                destroy_process_group()
                return result
            except ValueError as error:
                sys.exit(f"error: {error}")
            except FloatingPointError as error:
                _exit_all(f"error: {error}", 1)
            except Interrupted as interrupted:
                _exit_all(str(interrupted), interrupted.exit_code)
            except KeyboardInterrupt:
                sys.exit("stopped; run the same command again to continue")
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _exit_silently()
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):
                _exit_silently()
            if isinstance(end.code, str) and not _is_first_to_report(end.code, os.environ):
                sys.exit(1)
            raise
        finally:
            warnings.formatwarning = default

    return run


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if issubclass(category, UserWarning):
        return f"warning: {' '.join(str(message).split())}\n"
    return _PYTHON_FORMAT(message, category, filename, lineno, line)


def _exit_all(message: str, code: int) -> NoReturn:
    """Exit for a reason that all processes share; the first one prints it."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
    sys.exit(code)


def _exit_silently() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for output flushed at interpreter exit
    sys.exit(BROKEN_PIPE)


def _is_first_to_report(message: str, environ: Mapping[str, str]) -> bool:
    """Return whether no other process of this job on this machine has reported the message.

    Reported messages are marked by files next to torchrun's error files.
    """
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
