"""The columns of a manifest, the parsing of rows, and reading ``manifest.parquet`` as untrusted input."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from genviews_core.images import UnreadableImage
from genviews_core.keys import OUTSIDE_PATTERN, leaves_folder, path_inside

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_hash", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("strength", pa.float64()),
        pa.field("foreground_ratio", pa.float64()),
        pa.field("partner_key", pa.string()),
        pa.field("alpha", pa.float64()),
        pa.field("supervision", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
PATHS = ("key", "path", "partner_key")  # columns that name files, each inside its folder


@dataclass(frozen=True, kw_only=True)
class Row:
    """One view. ``seed`` is the view's own; ``path`` is relative to the views' root; see ``SCHEMA`` for the types."""

    key: str
    k: int
    path: str
    generator: str
    model: str
    model_hash: str
    seed: int
    strength: float | None
    foreground_ratio: float | None
    partner_key: str | None
    alpha: float | None
    supervision: str
    licence: str
    width: int
    height: int
    sha256: str


NOT_A_ROW = "expected the JSON object of a view"


def parse_rows(lines: bytes, columns: Sequence[str]) -> pa.Table | None:
    """Return the rows of complete lines, or None if a line is invalid."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(BytesIO(lines), pyarrow.json.ReadOptions(block_size=len(lines)), options)
        table = table.cast(schema)
    except pa.ArrowException:
        return None
    if any(table[field.name].null_count for field in schema if not field.nullable):
        return None
    return None if path_outside(table) else table


def path_outside(table: pa.Table) -> tuple[str, str] | None:
    """Return column and value of a path in the table that could leave its folder, or None."""
    pattern = pc.MatchSubstringOptions(OUTSIDE_PATTERN)
    for name in [name for name in PATHS if name in table.column_names]:
        mask = pc.call_function("match_substring_regex", [table[name]], pattern)
        if outside := table[name].filter(mask)[:1].to_pylist():
            return name, outside[0]
    return None


def parse_row(line: bytes) -> dict[str, Any] | str:
    """Return the row of one line, or the reason why the line is invalid."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return NOT_A_ROW
    if not isinstance(row, dict):
        return NOT_A_ROW
    for field in SCHEMA:
        value = row.get(field.name)
        if not (field.nullable if value is None else _fits(value, field.type)):
            return f"expected {field.name} of type {field.type}, got {json.dumps(value)[:60]}"
    outside = [name for name in PATHS if row.get(name) is not None and leaves_folder(row[name])]
    if outside:
        return f"expected {outside[0]} to be a path inside its folder, got {row[outside[0]]!r}"
    return {name: row.get(name) for name in SCHEMA.names}


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind):
        return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if pa.types.is_floating(kind):
        return type(value) in (int, float)
    return type(value) is int and -(2 ** (kind.bit_width - 1)) <= value < 2 ** (kind.bit_width - 1)


@dataclass(frozen=True)
class Manifest:
    """An open ``manifest.parquet``. Reads raise a ValueError if it is damaged or lists a path outside the folder."""

    path: Path
    file: pq.ParquetFile

    @property
    def group_rows(self) -> list[int]:
        """Return the number of rows of each row group."""
        return [self.file.metadata.row_group(group).num_rows for group in range(self.file.num_row_groups)]

    def read_group(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Read columns of a row group."""
        try:
            return self._checked(self.file.read_row_group(group, columns=list(columns)))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def read_keys(self, keys: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Read columns of the rows with the given image keys."""
        try:
            return self._checked(pq.read_table(self.path, columns=list(columns), filters=[("key", "in", list(keys))]))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of all rows in batches of ``rows``."""
        try:
            for batch in self.file.iter_batches(rows, columns=list(columns)):
                yield from self._checked(pa.Table.from_batches([batch])).combine_chunks().to_batches()
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def _checked(self, table: pa.Table) -> pa.Table:
        table = table.cast(pa.schema([SCHEMA.field(name) for name in table.column_names]))
        outside = path_outside(table)
        if outside is not None:
            name, text = outside
            raise ValueError(
                f"{self.path}: expected {name} to be a path inside its folder, got {text!r}; do not use it"
            )
        return table


def open_manifest(views_root: str | os.PathLike[str]) -> Manifest:
    """Open the manifest of a folder of views.

    Raises:
        ValueError: if there is none, or it is damaged, empty, or not a manifest of views.
    """
    path = Path(views_root, "manifest.parquet")
    if not path.is_file():
        raise ValueError(f"expected a manifest.parquet in {views_root}, got none; run `viewgen index {views_root}`")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
        raise ValueError(f"expected a manifest of views, got {path}, which lacks the columns {', '.join(missing)}")
    if not file.metadata.num_rows:
        raise ValueError(f"expected one or more views in {path}, got none; generate some with `viewgen generate`")
    return Manifest(path, file)


def view_path(views_root: Path, path: str) -> Path:
    """Return the file of a view listed in a manifest.

    Raises:
        UnreadableImage: if the path could leave the folder, or is a link that leaves it.
    """
    try:
        return path_inside(views_root, path)
    except ValueError as error:
        raise UnreadableImage(str(error)) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"cannot read {path} ({(str(error).splitlines() or ['damaged'])[0]}); run `viewgen index` again")
