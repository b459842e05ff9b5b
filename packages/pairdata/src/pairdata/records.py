"""Records: a folder of FFCV files that hold images, their views, and all other fields of a batch.

    RECORDS/00000.beton ...   the images' squares, keys, labels and sizes; FFCV can read each file by itself
    RECORDS/00000.json ...    its length, its SHA-256, and the images that could not be read when it was packed
    RECORDS/rows.npy          the offsets of the squares of every row, from the tables of the files
    RECORDS/records.json      what the records contain; written last

Legend: N rows, K slots for views and M for interpolated views in each, S size of the squares.
"""

import errno
import json
import mmap
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import fsdecode
from pathlib import Path
from typing import Any

import numpy as np

from pairdata.ffcv_format import Beton, Kind, Mode
from pairdata.record_index import check_index, check_rows

FORMAT = 1
UNTRACKED = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # do not keep a file descriptor per map
INDEX, ROWS = "records.json", "rows.npy"

_SQUARE = np.dtype([("place", "<u8"), ("bytes", "<u4"), ("exists", "?"), ("height", "<i4"), ("width", "<i4")])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The content of each row.

    Attributes:
        size: S.
        mode: the encoding of squares.
        quality: JPEG quality.
        views: K.
        mixed: M.
    """

    size: int
    mode: Mode
    quality: int
    views: int
    mixed: int

    @property
    def squares(self) -> tuple[str, ...]:
        """Return the names of the image fields."""
        return ("real", *(f"view{k}" for k in range(self.views)), *(f"mixed{m}" for m in range(self.mixed)))

    @property
    def fields(self) -> dict[str, Kind]:
        """Return the fields of a row as FFCV defines them.

        `views` and `mixed` are the numbers of an image's views; if one is missing or unreadable, `exists` is 0 and its
        field holds the real image. `partner` is the row of the other image of an interpolated view.
        """
        fields: dict[str, Kind] = dict.fromkeys(self.squares, "image")
        fields |= {"key": "bytes", "index": "int", "label": "int", "views": "int", "mixed": "int"}
        for name in self.squares:
            fields |= {f"{name}_exists": "int", f"{name}_height": "int", f"{name}_width": "int"}
        for m in range(self.mixed):
            fields |= {f"mixed{m}_partner": "int", f"mixed{m}_alpha": "float"}
        return fields

    @property
    def row_type(self) -> np.dtype:
        """Return the dtype of rows.npy."""
        return np.dtype(
            [
                ("index", "<i8"),
                ("label", "<i8"),
                ("views", "<i4"),
                ("mixed", "<i4"),
                ("key", [("place", "<u8"), ("bytes", "<u4")]),
                ("square", _SQUARE, (len(self.squares),)),
                ("partner", "<i8", (self.mixed,)),
                ("alpha", "<f4", (self.mixed,)),
            ]
        )

    def locate(self, beton: Beton) -> np.ndarray:
        """Return the rows of rows.npy for the rows of a file."""
        rows = np.zeros(len(beton.rows), self.row_type)
        for name in ("index", "label", "views", "mixed"):
            rows[name] = beton.rows[name]
        rows["key"]["place"], rows["key"]["bytes"] = beton.rows["key"]["ptr"], beton.rows["key"]["size"]
        for column, name in enumerate(self.squares):
            square = rows["square"][:, column]
            square["place"] = beton.rows[name]["data_ptr"]
            square["bytes"] = beton.length(square["place"])
            for field in ("exists", "height", "width"):
                square[field] = beton.rows[f"{name}_{field}"]
        for m in range(self.mixed):
            rows["partner"][:, m], rows["alpha"][:, m] = beton.rows[f"mixed{m}_partner"], beton.rows[f"mixed{m}_alpha"]
        return rows


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file: its name, length and SHA-256."""

    file: str
    bytes: int
    sha256: str


class Records:
    """Records opened for reading. All processes share their pages in the system's cache.

    Attributes:
        root: the folder.
        layout: the content of each row.
        classes: the names of the classes; labels are positions in it.
        shard_images: rows in each file; the last may have fewer.
        shards: the files.
        rows: one entry of `layout.row_type` per row, memory-mapped.
        view_counts: number of images by number of views.
        maps: the files, mapped into memory.
        addresses: start address of each map, uint64.
    """

    def __init__(self, root: str | Path):
        """Open the files and validate the index, without reading squares.

        Raises:
            ValueError: the records are missing, unfinished, of another version or truncated, or the index does not
                match the files.
        """
        self.root = Path(root)
        index = read_index(self.root)
        self.layout = Layout(**index["layout"])
        self.classes = tuple(index["classes"])
        self.shard_images: int = index["shard_images"]
        self.shards = [Shard(**shard) for shard in index["shards"]]
        self.view_counts = {int(count): images for count, images in index["view_counts"].items()}
        for shard in self.shards:
            check_length(self.root, shard)
        lengths = np.array([shard.bytes for shard in self.shards], np.uint64)
        self.rows = self._open_rows(index["images"], lengths)
        self.maps = [_map(self.root / shard.file) for shard in self.shards]
        views = [np.frombuffer(opened, np.uint8) for opened in self.maps]
        self.addresses = np.array([view.ctypes.data for view in views], np.uint64)

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, i: int) -> str:
        """Return the key of image i."""
        if not 0 <= i < len(self):
            raise IndexError(f"expected an image in 0..{len(self) - 1}, got {i}")
        return fsdecode(self._raw_key(i))

    def position(self, key: str) -> int:
        """Return the position of the image with this key.

        Raises:
            KeyError: there is no such image.
        """
        wanted, low, high = key.encode(errors="surrogateescape"), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._raw_key(middle) < wanted else (low, middle)
        if low == len(self) or self._raw_key(low) != wanted:
            raise KeyError(f"no image {key!r} in {self.root}")
        return low

    def missing_views(self, slots: int) -> int:
        """Return the number of empty slots, with a given number of view slots per row."""
        return sum(max(slots - count, 0) * images for count, images in self.view_counts.items())

    def _raw_key(self, i: int) -> bytes:
        offset, length = self.rows[i]["key"].tolist()
        return self.maps[i // self.shard_images][offset : offset + length]

    def _open_rows(self, images: int, lengths: np.ndarray) -> np.ndarray:
        path = self.root / ROWS
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
        except OSError as error:
            raise _cannot_open(path, error) from error
        except (ValueError, EOFError, OverflowError) as error:
            raise ValueError(f"{path} cannot be read ({error}); pack again to restore it") from error
        if rows.dtype != self.layout.row_type or rows.shape != (images,):
            raise ValueError(f"{path} does not belong to {INDEX} in the same folder; pack again to restore it")
        try:
            check_rows(rows, lengths, self.shard_images, self.layout, len(self.classes))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); pack again to restore it") from None
        return rows


def is_records(root: Path) -> bool:
    """Return whether a folder contains records, finished or not."""
    return (root / INDEX).is_file() or (root / "packing.json").is_file()


def read_index(root: Path) -> dict[str, Any]:
    """Read records.json.

    Raises:
        ValueError: it is missing, damaged or of another version.
    """
    if root.is_file():
        raise ValueError(f"expected a folder of records, got the file {root}; give its folder")
    if not (root / INDEX).is_file():
        remedy = "the packing has not ended, start it again" if is_records(root) else "create records with apps/pack"
        raise ValueError(f"expected {INDEX} in {root}, got none; {remedy}")
    try:
        index = json.loads((root / INDEX).read_text(encoding="utf-8"))
        version = index["format"]
        if version == FORMAT:
            check_index(index)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{root / INDEX} is damaged ({error}); pack again to restore it") from error
    if version != FORMAT:
        raise ValueError(f"the records in {root} have version {version}, expected {FORMAT}; pack them again")
    return index


def make_index(
    layout: Layout, shards: list[Shard], *, images: int, shard_images: int, classes: tuple[str, ...], counts: Mapping
) -> dict[str, Any]:
    """Return the content of records.json."""
    return {
        "format": FORMAT,
        "images": images,
        "layout": asdict(layout),
        "shard_images": shard_images,
        "shards": [asdict(shard) for shard in shards],
        "view_counts": {str(count): number for count, number in counts.items()},
        "classes": list(classes),
    }


def check_length(root: Path, shard: Shard) -> None:
    """Check that a file exists with the length that it was packed with.

    Raises:
        ValueError: the file is missing or has another length.
    """
    path = root / shard.file
    length = path.stat().st_size if path.is_file() else None
    if length != shard.bytes:
        got = "no file" if length is None else f"{length} bytes"
        raise ValueError(f"expected {shard.bytes} bytes in {path}, got {got}; pack again to restore it")


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **UNTRACKED)
    except OSError as error:
        raise _cannot_open(path, error) from error


def _cannot_open(path: Path, error: OSError) -> ValueError:
    many = error.errno in (errno.EMFILE, errno.ENFILE)
    remedy = "raise the limit with `ulimit -n 4096`, or pack with a larger --shard-images" if many else "pack again"
    return ValueError(f"{path} cannot be read ({error.strerror}); {remedy}")
