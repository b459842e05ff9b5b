"""Strings in two flat arrays: a million file names cost their bytes, not a million objects."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from os import fsdecode, fsencode

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, eq=False)
class StringArray:
    """An immutable sequence of strings, held as UTF-8 bytes and offsets.

    Forked worker processes share the two arrays; file names that are not valid UTF-8 survive the round trip.

    Attributes:
        data: the bytes of all strings, one after another, uint8.
        offsets: start of each string and the end, int64.
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def pack(cls, strings: Iterable[str]) -> "StringArray":
        """Pack an iterable of strings."""
        data, offsets = bytearray(), array("q", [0])
        for string in strings:
            data += fsencode(string)
            offsets.append(len(data))
        return cls(np.frombuffer(bytes(data), np.uint8), np.frombuffer(offsets, np.int64))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> "StringArray":
        """Convert an Arrow string column; null becomes the empty string."""
        strings = column.cast(pa.large_string()).fill_null("").combine_chunks()
        if isinstance(strings, pa.ChunkedArray):  # combine_chunks keeps an empty column chunked
            strings = pa.concat_arrays(strings.chunks) if strings.num_chunks else pa.array([], pa.large_string())
        _, offsets, data = strings.buffers()
        starts = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
        return cls(np.frombuffer(data or b"", np.uint8), starts)

    def to_arrow(self) -> pa.LargeBinaryArray:
        """Return the strings as an Arrow array of bytes, without a copy."""
        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def raw(self, i: int) -> bytes:
        """Return the bytes of string i."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def __getitem__(self, i: int) -> str:
        if not 0 <= i < len(self):
            raise IndexError(f"expected a string in 0..{len(self) - 1}, got {i}")
        return fsdecode(self.raw(i))

    def find(self, string: str) -> int:
        """Return the position of a string, or -1, by binary search; the strings must be sorted by their bytes."""
        wanted, low, high = fsencode(string), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.raw(middle) < wanted else (low, middle)
        return low if low < len(self) and self.raw(low) == wanted else -1

    def take(self, positions: np.ndarray) -> "StringArray":
        """Return the strings at some positions, in that order."""
        return StringArray.pack(self[int(i)] for i in positions)
