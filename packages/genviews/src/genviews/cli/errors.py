"""The end of a command: errors in one line, interruptions with their exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn errors of users, non-finite losses and interruptions into one line and an exit code."""
    try:
        yield
    except ValueError as error:
        sys.exit(f"error: {error}")
    except FloatingPointError as error:
        _exit_all(f"error: {error}", 1)
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    except Exception as error:
        if type(error).__name__ != "TrainingInterrupted":  # importing its class would import torch
            raise
        _exit_all(str(error), getattr(error, "exit_code"))  # noqa: B009 (not an attribute of Exception)


def _exit_all(message: str, code: int) -> NoReturn:
    """Exit for a reason that all processes share; the first one prints it."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
    sys.exit(code)
