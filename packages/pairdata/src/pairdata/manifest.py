"""The manifest of a views folder, read into flat arrays."""

import contextlib
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genviews_core.keys import OUTSIDE_PATTERN, leaves_folder, path_inside
from pairdata.string_array import StringArray

# The columns a loader needs, of the sixteen a manifest has; the last two may be missing.
_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("k", pa.int32()),
        ("path", pa.large_string()),
        ("partner_key", pa.large_string()),
        ("alpha", pa.float32()),
    ]
)
_PATHS = ("key", "path", "partner_key")
_SURROGATES = re.compile("[\ud800-\udfff]")
_REMEDY = "fold the journals again with `viewgen index`"
_ROWS_AT_A_TIME = 65536


class ViewsIndex:
    """The views in a folder, by the key of the image that they were generated from.

    Reads `manifest.parquet` and the journals beside it (`journals/*.jsonl`), which hold the rows written
    since it was merged; of two rows with the same key and k the later one is used. An incomplete last line is ignored.

    An interpolated view has an alpha; a partner without alpha (retrieval) is the image that the view shows.

    Attributes:
        root: the views folder.
        keys: the images that have views, sorted by their bytes.
        first: int64 [len(keys) + 1]; the rows of keys[i] are first[i] to first[i + 1], by ascending k.
        files: per row, the view's path relative to the root.
        partners: per row, the key of the other image that the view was made from, or "".
        alpha: per row, float32, the weight of the row's own image in an interpolated view, else nan.
    """

    def __init__(self, root: str | Path, *, interpolated: bool = False):
        """Read the manifest.

        Args:
            root: the views folder.
            interpolated: use the interpolated views (rows with an alpha) instead of the others.

        Raises:
            ValueError: the manifest is missing or damaged, lists a path outside the folder, or has no rows of the
                requested kind.
        """
        self.root = Path(root)
        table = _latest_rows(_read(self.root))
        table = table.filter(table["alpha"].is_valid() if interpolated else table["alpha"].is_null())
        if not len(table):
            kind = "interpolated views (rows with an alpha)" if interpolated else "views that are not interpolated"
            raise ValueError(f"expected {kind} in the manifest of {self.root}, got none; generate some")
        changes = _differs_from_next(table["key"])
        self.first = np.concatenate([[0], np.flatnonzero(changes) + 1])
        self.keys = StringArray.from_arrow(table["key"].filter(pa.array(changes)))
        self.files = StringArray.from_arrow(table["path"])
        self.partners = StringArray.from_arrow(table["partner_key"])
        self.alpha = table["alpha"].to_numpy()

    def __len__(self) -> int:
        return len(self.files)

    def path(self, row: int) -> Path:
        """Return the file of a row.

        Raises:
            ValueError: the file is a link that leaves the folder.
        """
        return path_inside(self.root, self.files[row])

    def paths(self, key: str) -> list[str]:
        """Return the files of an image's views relative to the root, by ascending k; none for an unknown key."""
        return [self.files[row] for row in self._rows(key)]

    def partners_of(self, key: str) -> list[tuple[str, float]]:
        """Return (partner_key, alpha) of each interpolated view of an image, by ascending k."""
        return [(self.partners[row], float(self.alpha[row])) for row in self._rows(key)]

    def align(self, keys: StringArray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first row and the number of rows (0 for an unknown key) of each key, both int64."""
        known = pc.SetLookupOptions(value_set=self.keys.to_arrow())
        positions = pc.call_function("index_in", [keys.to_arrow()], known).fill_null(-1).to_numpy()
        counts = np.append(np.diff(self.first), 0)  # the last one serves the unknown, -1
        return self.first[positions], counts[positions]

    def _rows(self, key: str) -> range:
        position = self.keys.find(key)
        return range(self.first[position], self.first[position + 1]) if position >= 0 else range(0)


def _read(root: Path) -> pa.Table:
    """Return all rows, oldest first."""
    manifest, journals = root / "manifest.parquet", sorted(root.glob("journals/*.jsonl"))
    if not manifest.is_file() and not journals:
        raise ValueError(f"no manifest of views in {root}: expected manifest.parquet or journals/*.jsonl there")
    tables = [_read_parquet(manifest)] if manifest.is_file() else []
    return pa.concat_tables([*tables, *(table for journal in journals for table in _read_journal(journal))])


def _read_parquet(path: Path) -> pa.Table:
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in _SCHEMA.names if name in names])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable manifest ({_line(error)}); {_REMEDY}") from error
    if missing := [name for name in _SCHEMA.names[:3] if name not in names]:
        raise ValueError(
            f"expected a manifest of views, got {path} without the columns {', '.join(missing)}; {_REMEDY}"
        )
    for field in _SCHEMA:
        if field.name not in names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return _checked(table.select(_SCHEMA.names), path)


def _checked(table: pa.Table, path: Path) -> pa.Table:
    """Cast the table to `_SCHEMA` and validate its rows.

    Raises:
        ValueError: a row is invalid.
    """
    try:
        table = table.cast(_SCHEMA)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a manifest of views ({_line(error)}); {_REMEDY}") from error
    if empty := [name for name in _SCHEMA.names[:3] if table[name].null_count]:
        raise ValueError(f"{path} has a row without {empty[0]}; {_REMEDY}")
    for name in _PATHS:
        pattern = pc.MatchSubstringOptions(OUTSIDE_PATTERN)
        mask = pc.call_function("match_substring_regex", [table[name]], pattern)
        if outside := table[name].filter(mask)[:1].to_pylist():
            raise ValueError(f"{path}: expected {name} to be a path inside its folder, got {outside[0]!r}; {_REMEDY}")
    alpha = table["alpha"].drop_null().to_numpy()
    if len(wrong := alpha[~((alpha >= 0) & (alpha <= 1))]):
        raise ValueError(f"{path}: expected alpha from 0 to 1 or null, got {wrong[0]}; {_REMEDY}")
    return table


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_journal(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a journal in tables of bounded size, at least one table."""
    with path.open("rb") as lines:
        rows = _parse(lines, path)
        while chunk := list(islice(rows, _ROWS_AT_A_TIME)):
            yield pa.Table.from_pylist(chunk, schema=_SCHEMA)
    yield _SCHEMA.empty_table()


def _parse(lines: Iterator[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of complete lines; an incomplete last line, left by an interrupted run, is ignored.

    Raises:
        ValueError: a complete line is not a row.
    """
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        if not line.strip():
            continue
        row: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        if reason := _row_error(row):
            root = path.parent.parent
            raise ValueError(f"{path}, line {number}: {reason}; `viewgen verify {root} --repair` removes it")
        yield {name: row.get(name) for name in _SCHEMA.names}


def _row_error(row: Any) -> str | None:
    """Return the reason why a line's content is not a row of a view, or None if it is one."""
    if not isinstance(row, dict):
        return "expected the JSON object of a view"
    for name in _PATHS:
        if not (_is_path(row.get(name)) or (name == "partner_key" and row.get(name) is None)):
            return f"expected {name} to be a path inside its folder, got {row.get(name)!r}"
    if type(row.get("k")) is not int or not 0 <= row["k"] < 2**31:
        return f"expected k to be an integer, got {row.get('k')!r}"
    alpha = row.get("alpha")
    if alpha is not None and not (type(alpha) in (int, float) and 0 <= alpha <= 1):
        return f"expected alpha from 0 to 1 or null, got {alpha!r}"
    return None


def _is_path(text: Any) -> bool:
    """Return whether the value is a string that is valid UTF-8 and a path inside its folder."""
    return isinstance(text, str) and not leaves_folder(text) and not _SURROGATES.search(text)


def _latest_rows(table: pa.Table) -> pa.Table:
    """Return the rows sorted by key and k, the last one of equal key and k."""
    table = table.append_column("row", pa.array(np.arange(len(table))))
    table = table.sort_by([("key", "ascending"), ("k", "ascending"), ("row", "ascending")])
    return table.filter(pa.array(_differs_from_next(table["key"]) | _differs_from_next(table["k"])))


def _differs_from_next(column: pa.ChunkedArray) -> np.ndarray:
    """Return whether each value differs from the next one; true for the last value."""
    changes = pc.call_function("not_equal", [column.slice(0, max(len(column) - 1, 0)), column.slice(1)])
    return np.append(changes.to_numpy(), [True])[: len(column)].astype(bool)
