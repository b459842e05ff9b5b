"""Runs apps and benchmarks in this process, which has imported their libraries already."""

import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_main(main: Callable[[], object], program: str, *arguments: object, expect: int = 0) -> str:
    """Run a command's main function, check its exit code, and return what it printed."""
    argv, path, printed, code = sys.argv, sys.path[:], StringIO(), 0
    sys.argv = [program, *map(str, arguments)]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=printed)
    finally:
        sys.argv, sys.path[:] = argv, path
    assert code == expect, printed.getvalue()
    return printed.getvalue()


def run_program(program: str | Path, *arguments: object, expect: int = 0) -> str:
    """Run a program as `python PROGRAM ARGUMENTS` does, check its exit code, and return what it printed.

    Args:
        program: path of a folder with __main__.py, such as "apps/pack"; relative to the repository.
        arguments: command-line arguments.
        expect: exit code; 1 for an error message.
    """
    return run_main(
        lambda: runpy.run_path(str(ROOT / program), run_name="__main__"), str(program), *arguments, expect=expect
    )
