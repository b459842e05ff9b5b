"""Find and read the images in shards: WebDataset tars and Parquet files, local or in any store that fsspec can open.

The keys are those of a folder with the same images. In a tar, a key is the name of a member that a listing of the
unpacked tar would contain (an image suffix, no hidden name); the other files of a sample are not read. In Parquet, it
is the path beside the bytes (the Image feature of Hugging Face's datasets), or a column of keys and the name of the
column of bytes (img2dataset: "000000012" and "jpg" give "000000012.jpg"), or else the shard's name and the row number.

Nothing is unpacked, and names that could leave a folder are refused.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from genviews_core.images import SUFFIXES
from genviews_core.keys import leaves_folder, name_fault
from genviews_core.listing import iter_images

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SHARD_SUFFIXES = (".tar", ".parquet")
MAX_IMAGE_BYTES = 1 << 29
"""Larger members of a tar are refused."""
MAX_GROUP_BYTES = 1 << 32
"""Parquet files whose row groups hold more bytes of images, uncompressed, are refused."""
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes")
KEY_COLUMNS = ("key", "__key__", "file_name", "path")


class ShardError(ValueError):
    """Raised if a shard cannot be read; the message is one line that names it."""


class Entry(NamedTuple):
    """The place of an image in its shard.

    Attributes:
        key: key of the image.
        start: offset of its bytes in a tar; number of its row group in Parquet.
        extent: number of its bytes in a tar; row in its row group in Parquet.
    """

    key: str
    start: int
    extent: int


def is_sharded(source: str | os.PathLike[str]) -> bool:
    """Return whether a data set is in shards: a URL, .tar or .parquet files or a pattern of them, or their folder.

    A folder that also has image files is a folder of images.
    """
    text, path = os.fspath(source), Path(source)
    if "://" in text or (text.endswith(SHARD_SUFFIXES) and not path.is_dir()):
        return True
    if not path.is_dir() or not any(entry.name.endswith(SHARD_SUFFIXES) for entry in os.scandir(path)):
        return False
    return next(iter_images(path, lambda folder, error: None), None) is None


def find_shards(source: str | os.PathLike[str]) -> list[str]:
    """Return the shards of a data set, sorted; its Parquet files are left out if it has tars (they describe the tars).

    Args:
        source: a shard, a folder with shards directly in it, or a pattern such as ``s3://bucket/train-*.tar``.

    Raises:
        ShardError: there are none, or the store cannot be read.
    """
    text = os.fspath(source)
    with reading(text):
        store, root = _store(text)
        if any(letter in root for letter in "*?["):
            found = store.glob(root)
        else:
            found = store.ls(root, detail=False) if store.isdir(root) else [root] if store.exists(root) else []
    named = [path for path in map(str, found) if not PurePosixPath(path).name.startswith(".")]
    shards = next(
        (kind for suffix in SHARD_SUFFIXES if (kind := [name for name in named if name.endswith(suffix)])), []
    )
    if not shards:
        raise ShardError(
            f"expected .tar or .parquet shards of images at {text}, got none; give their folder or a pattern"
        )
    local = "://" not in text
    return sorted(path if local else store.unstrip_protocol(path) for path in shards)


def list_shard(shard: str, on_refused: Callable[[str, str], object]) -> Iterator[Entry]:
    """Yield the images of a shard in their order, without reading them.

    Args:
        shard: one of `find_shards`.
        on_refused: called with the name and the reason for each image that is refused: links, devices and sparse files,
            absolute names, names with "..", and images above MAX_IMAGE_BYTES.

    Raises:
        ShardError: the shard is missing, damaged, cut off or of another layout.
    """
    with reading(shard):
        store, path = _store(shard)
        with store.open(path, "rb") as file:
            listed = _list_tar(file) if shard.endswith(".tar") else _list_parquet(file, PurePosixPath(shard).stem)
            for entry, fault in listed:
                if fault := fault or _name_fault(entry.key):
                    on_refused(entry.key, fault)
                else:
                    yield entry._replace(key=str(PurePosixPath(entry.key)))


class ShardReader:
    """Reads images of shards by their entries; keeps the last row group of a Parquet file.

    Thread-safe; one per thread avoids waiting.
    """

    def __init__(self) -> None:
        self._held: tuple[tuple[str, int], pa.ChunkedArray] | None = None

    def read(self, shard: str, entry: Entry) -> bytes:
        """Return the bytes of an image.

        Raises:
            ShardError: they cannot be read, or there are none.
        """
        with reading(shard):
            if shard.endswith(".tar"):
                store, path = _store(shard)
                data = store.cat_file(path, entry.start, entry.start + entry.extent)
                if len(data) != entry.extent:
                    raise ValueError("it is cut off")
                return data
            held = self._held
            if held is None or held[0] != (shard, entry.start):
                self._held = held = ((shard, entry.start), _read_group(shard, entry.start))
            data = held[1][entry.extent].as_py()
        if data is None:
            raise ShardError(f"{shard} has no image in the row of {entry.key!r}")
        return data


@contextlib.contextmanager
def reading(shard: str) -> Iterator[None]:
    """Turn errors of stores, tars and Parquet files into a ShardError of one line."""
    try:
        yield
    except ShardError:
        raise
    except Exception as error:  # each store raises types of its own
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
        raise ShardError(f"cannot read {shard}: {' '.join(reason.split())[:300]}") from error


def _store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it."""
    import fsspec.core

    return fsspec.core.url_to_fs(url if "://" in url else os.path.abspath(url))  # noqa: PTH100 (keeps patterns)


def _name_fault(key: str) -> str | None:
    if leaves_folder(key) or not PurePosixPath(key).parts:
        return f"expected a key that is a path inside its folder, without '..', got {key!r}"
    return name_fault(key)


def _list_tar(file: Any) -> Iterator[tuple[Entry, str | None]]:
    tar: Any  # whose list of members is not in its stub
    with tarfile.open(fileobj=file, mode="r:") as tar:
        offset = -1
        while (member := tar.next()) is not None:
            if tar.offset <= offset or member.size < 0:
                raise ValueError("a header of the tar is damaged")
            offset, tar.members = tar.offset, []  # which would grow without limit
            if member.isdir() or not _is_image(member.name):
                continue
            fault = None
            if not member.isreg() or member.issparse():
                fault = "expected a regular file, got a link, a device or a sparse file in the tar"
            elif member.size > MAX_IMAGE_BYTES:
                fault = f"expected at most {MAX_IMAGE_BYTES:,} bytes, got {member.size:,}"
            yield Entry(member.name, member.offset_data, member.size), fault
        file.seek(tar.offset)
        if not file.read(1):
            raise ValueError("the tar's end mark is missing: it is cut off, copy it again")


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") and part != ".." for part in path.parts)


class _Layout(NamedTuple):
    """Columns of a Parquet file: the bytes of images, their keys if there are any, and what to append to these."""

    image: str
    key: str | None
    suffix: str


def _layout(schema: pa.Schema) -> _Layout:
    import pyarrow.types as types

    def binary(kind: pa.DataType) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    for field in sorted(schema, key=lambda field: field.name not in IMAGE_COLUMNS):
        if types.is_struct(field.type):
            parts = {part.name: part.type for part in field.type}
            if "bytes" in parts and binary(parts["bytes"]):
                own = f"{field.name}.path" if "path" in parts else None
                return _Layout(f"{field.name}.bytes", own or _key_column(schema), "")
        elif field.name in IMAGE_COLUMNS and binary(field.type):
            suffix = f".{field.name}" if f".{field.name}" in SUFFIXES else ""
            return _Layout(field.name, _key_column(schema), suffix)
    wanted = f"bytes and path, or bytes named {', '.join(IMAGE_COLUMNS)}"
    raise ValueError(f"expected a column of images ({wanted}), got the columns {', '.join(schema.names)}")


def _key_column(schema: pa.Schema) -> str | None:
    return next((name for name in KEY_COLUMNS if name in schema.names), None)


def _list_parquet(file: Any, stem: str) -> Iterator[tuple[Entry, str | None]]:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    layout, first = _layout(parquet.schema_arrow), 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        _check_group(parquet, group, layout.image)
        keys = [None] * rows if layout.key is None else _column(parquet, group, layout.key).to_pylist()
        for row, key in enumerate(keys):
            name = f"{stem}/{first + row:08d}" if key is None else str(key)
            added = "" if key is None or PurePosixPath(name).suffix.lower() in SUFFIXES else layout.suffix
            yield Entry(name + added, group, row), None
        first += rows


def _read_group(shard: str, group: int) -> pa.ChunkedArray:
    """Return the images' bytes of a row group."""
    import pyarrow.parquet as pq

    store, path = _store(shard)
    with store.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        return _column(parquet, group, _layout(parquet.schema_arrow).image)


def _column(parquet: pq.ParquetFile, group: int, name: str) -> pa.ChunkedArray:
    """Return one column of a row group; "image.bytes" is a field of a struct."""
    outer, _, inner = name.partition(".")
    table = parquet.read_row_group(group, columns=[name])
    return table.flatten()[f"{outer}.{inner}"] if inner else table[outer]


def _check_group(parquet: pq.ParquetFile, group: int, name: str) -> None:
    about = parquet.metadata.row_group(group)
    for number in range(about.num_columns):
        column = about.column(number)
        if column.path_in_schema == name and column.total_uncompressed_size > MAX_GROUP_BYTES:
            size = column.total_uncompressed_size
            raise ValueError(f"expected row groups of at most {MAX_GROUP_BYTES:,} bytes of images, got {size:,}")
