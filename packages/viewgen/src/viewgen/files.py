"""Files that are either whole or not there."""

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FULL = {errno.ENOSPC, errno.EDQUOT}


class UnwritableOutput(ValueError):
    """The disk is full, or the folder may not be written."""


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the operating system says against writing into one line.

    Raises:
        UnwritableOutput: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            told = f"the disk of {place} is full: free some space and run again; what is written stays"
        else:
            told = f"cannot write under {place} ({error.strerror}): choose another folder, or change its permissions"
        raise UnwritableOutput(told) from error


def replace_bytes(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Write ``data`` to a temporary file on the same disk, then rename it to ``path``."""
    temporary = temporary or path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(data)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON to ``path``, atomically."""
    replace_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
