"""FFCV's file format (.beton), with numpy alone: rows of numbers, byte strings and square images.

The layout is that of https://github.com/libffcv/ffcv (ffcv/types.py, ffcv/writer.py), version 2, little-endian: a
header, a descriptor a field, the table of rows, pages of data, and the table of what was allocated in the pages.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["float", "int", "image", "bytes"]
Mode = Literal["jpeg", "raw"]

VERSION = 2
MODES: dict[Mode, int] = {"jpeg": 0, "raw": 1}  # ffcv/fields/rgb_image.py, IMAGE_MODES
USUAL_PAGE, LARGEST_PAGE = 1 << 23, 1 << 31  # ffcv/writer.py: 8 MiB unless asked, and its size fits 32 bits

_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
_FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
_ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
_TYPE_IDS: dict[Kind, int] = {"float": 0, "int": 1, "image": 2, "bytes": 3}
_TYPES: dict[Kind, np.dtype] = {
    "float": np.dtype("<f8"),
    "int": np.dtype("<i8"),
    "image": np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")]),
    "bytes": np.dtype([("ptr", "<u8"), ("size", "<u8")]),
}


@dataclass(frozen=True, eq=False)
class EncodedSquare:
    """An encoded square image; if a row has the same object twice, it is stored once."""

    data: bytes
    mode: Mode
    size: int


Value = int | float | bytes | EncodedSquare


class BetonWriter:
    """Writes one file, row after row; the file is complete after `close`.

    Args:
        path: the file.
        fields: name, in ASCII, at most 16 letters, and kind of each field.
        rows: number of rows that will be added.
        row_bytes: maximum number of bytes of a row's data.
    """

    def __init__(self, path: Path, fields: Mapping[str, Kind], *, rows: int, row_bytes: int):
        assert all(name.isascii() and len(name) <= 16 for name in fields)
        self._fields = fields
        self._page = max(USUAL_PAGE, 1 << (row_bytes - 1).bit_length())
        assert self._page <= LARGEST_PAGE, f"rows of {row_bytes} bytes do not fit a page of FFCV's"
        self._rows = np.zeros(rows, _row_type(fields.values()))
        self._allocations: list[tuple[int, int, int]] = []
        self._count = 0
        data_begins = _HEADER.itemsize + len(fields) * _FIELD.itemsize + self._rows.nbytes
        self._offset = -(-data_begins // self._page) * self._page
        self._file = path.open("wb")
        self._file.seek(self._offset)

    def add(self, values: Mapping[str, Value]) -> None:
        """Add a row; its data do not cross a page boundary."""
        data = {id(value): value for value in values.values() if isinstance(value, bytes | EncodedSquare)}
        blocks = {key: value if isinstance(value, bytes) else value.data for key, value in data.items()}
        length = sum(map(len, blocks.values()))
        assert length <= self._page
        if self._offset % self._page + length > self._page:
            self._offset += self._page - self._offset % self._page
            self._file.seek(self._offset)
        offsets: dict[int, int] = {}
        for key, block in blocks.items():
            self._file.write(block)
            self._allocations.append((self._count, self._offset, len(block)))
            offsets[key] = self._offset
            self._offset += len(block)
        for column, value in enumerate(values[name] for name in self._fields):
            self._rows[f"f{column}"][self._count] = _cell(value, offsets.get(id(value), 0))
        self._count += 1

    def close(self) -> None:
        """Write the metadata and sync the file to disk."""
        assert self._count == len(self._rows)
        header = np.zeros(1, _HEADER)
        header[0] = (VERSION, len(self._fields), self._page, self._count, self._offset)
        descriptors = np.zeros(len(self._fields), _FIELD)
        for descriptor, (name, kind) in zip(descriptors, self._fields.items(), strict=True):
            descriptor["type_id"] = _TYPE_IDS[kind]
            descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        with self._file as file:
            file.write(np.array(self._allocations, _ALLOCATION).tobytes())
            file.seek(0)
            file.write(header.tobytes() + descriptors.tobytes() + self._rows.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Close the incomplete file."""
        with contextlib.suppress(OSError):  # the disk is full: that is why it is abandoned
            self._file.close()


@dataclass(frozen=True, eq=False)
class Beton:
    """Metadata of a file: everything but the data.

    Attributes:
        rows: one record per row, with the names of the fields.
        bytes: length of each allocation, in ascending order of the offset.
        offsets: the offsets.
    """

    rows: np.ndarray
    offsets: np.ndarray
    bytes: np.ndarray

    def length(self, offsets: np.ndarray) -> np.ndarray:
        """Return the lengths of the allocations at some offsets, int64."""
        found = np.searchsorted(self.offsets, offsets).clip(max=len(self.offsets) - 1)
        if not np.array_equal(self.offsets[found], offsets):
            raise ValueError("a row points to an offset without data")
        return self.bytes[found].astype(np.int64)


def read_tables(path: Path) -> Beton:
    """Read the metadata of a file.

    Raises:
        ValueError: the file has another format or version, or is damaged.
    """
    try:
        size = path.stat().st_size
        header = np.fromfile(path, _HEADER, 1)[0]
        if header["version"] != VERSION:
            raise ValueError(f"expected format version {VERSION}, got {header['version']}")
        descriptors = np.fromfile(path, _FIELD, int(header["num_fields"]), offset=_HEADER.itemsize)
        names = [bytes(name).rstrip(b"\0").decode("ascii") for name in descriptors["name"]]
        kinds: dict[int, Kind] = {number: kind for kind, number in _TYPE_IDS.items()}
        table = _row_type(kinds[number] for number in descriptors["type_id"].tolist())
        if int(header["num_samples"]) * table.itemsize > size or int(header["alloc_table_ptr"]) > size:
            raise ValueError("it is truncated")
        rows = np.fromfile(path, table, int(header["num_samples"]), offset=_HEADER.itemsize + descriptors.nbytes)
        allocations = np.fromfile(path, _ALLOCATION, offset=int(header["alloc_table_ptr"]))
        if len(rows) != header["num_samples"] or not len(allocations):
            raise ValueError("it is truncated")
    except (IndexError, KeyError, UnicodeDecodeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable record ({error}); pack it again") from error
    rows.dtype.names = tuple(names)
    order = np.argsort(allocations["ptr"], kind="stable")
    return Beton(rows, allocations["ptr"][order], allocations["size"][order])


def _row_type(kinds: Iterable[Kind]) -> np.dtype:
    """Return the dtype of a row as ffcv.types.get_metadata_type does, with fields f0, f1, ..."""
    return np.dtype([("", _TYPES[kind]) for kind in kinds], align=True)


def _cell(value: Value, offset: int) -> int | float | tuple[int, ...]:
    if isinstance(value, EncodedSquare):
        return MODES[value.mode], value.size, value.size, offset
    return (offset, len(value)) if isinstance(value, bytes) else value
