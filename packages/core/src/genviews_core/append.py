"""Lines appended to a file that several processes may add to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from genviews_core.files import writing


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add one line and wait until it is on the disk; of several processes one writes at a time.

    A line that an earlier crash tore off is ended first, so that it cannot swallow the new one. Where the disk is full
    the file is cut back to what it was.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.lockf(file, fcntl.LOCK_EX)  # freed with the file
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            content = (b"\n" if torn else b"") + line.encode() + b"\n"
            try:
                written = file.write(content)
                if written < len(content):  # the rest says why
                    file.write(content[written:])
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
