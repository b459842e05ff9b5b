"""Append lines to a file that several processes may write to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from genviews_core.files import writing


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append one line and sync it to disk; only one process writes at a time.

    An incomplete last line left by an earlier crash is terminated first, so that it does not merge with the new one. If
    the disk is full, the file is truncated to its previous length.

    Raises:
        WriteError: the line cannot be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            with contextlib.suppress(OSError):  # the file system may not support locks
                fcntl.lockf(file, fcntl.LOCK_EX)  # released when the file is closed
            end = file.seek(0, os.SEEK_END)
            incomplete = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            content = (b"\n" if incomplete else b"") + line.encode() + b"\n"
            try:
                written = file.write(content)
                if written < len(content):  # writing the rest raises the reason
                    file.write(content[written:])
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
