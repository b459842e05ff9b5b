"""The images that no view can be made of, one line each."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path


class Failures:
    """``failures.jsonl``; several processes may add to it at once.

    Args:
        path: the file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._known = {failure["key"] for failure in read_failures(path)} if path.exists() else set()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if _torn(path):
            os.write(self._file, b"\n")  # ends a line that a kill tore off

    def add(self, key: str, error: str) -> None:
        """Append a line, unless the key has one."""
        if key not in self._known:
            self._known.add(key)
            os.write(self._file, (json.dumps({"key": key, "error": error}) + "\n").encode())

    def add_folder(self, folder: str, error: OSError) -> None:
        """Append a line for a folder that cannot be listed."""
        self.add(folder, f"cannot list the folder: {error.strerror}")

    def __del__(self) -> None:
        os.close(self._file)


def read_failures(path: Path) -> Iterator[dict[str, str]]:
    """Yield {"key", "error"} of each complete line; invalid lines are skipped."""
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                failure = json.loads(line)
                if isinstance(failure, dict) and isinstance(failure.get("key"), str):
                    yield failure


def _torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read() != b"\n"
