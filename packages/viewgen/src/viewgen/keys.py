"""A sorted list of keys in a file: millions of them cost eight bytes each in memory."""

import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

SCAN_BYTES = 1 << 24


class KeyFile(Sequence[str]):
    """The keys of a file with one JSON string a line, in ascending order; read from the disk as they are asked for.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._ends = _line_ends(self.path)
        with self.path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self._ends) else b""

    @classmethod
    def write(cls, path: Path, keys: Iterable[str]) -> "KeyFile":
        """Write ascending keys to ``path``, and open it."""
        last = None
        with path.open("w") as file:
            for key in keys:
                assert last is None or last < key, f"{key!r} follows {last!r}"
                file.write(json.dumps(key) + "\n")
                last = key
        return cls(path)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        start = int(self._ends[row - 1]) if row else 0
        return json.loads(self._data[start : int(self._ends[row])])

    def row(self, key: str) -> int | None:
        """The place of a key, or None."""
        row = bisect_left(self, key)
        return row if row < len(self) and self[row] == key else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


def _line_ends(path: Path) -> np.ndarray:
    """The offset behind each newline."""
    ends, offset = [np.empty(0, dtype=np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(SCAN_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0x0A) + offset + 1)
            offset += len(block)
    return np.concatenate(ends)
