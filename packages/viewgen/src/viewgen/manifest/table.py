"""Read the manifest of a folder of views in parts, and validate it as untrusted input."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from genviews_core.keys import path_inside
from viewgen.images import UnreadableImage
from viewgen.manifest.rows import path_outside
from viewgen.manifest.schema import SCHEMA


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
        raise ValueError(
            f"{views_root} has no manifest.parquet: run `viewgen index {views_root}` on the views of a run"
        )
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: it is not a manifest of views")
    if not file.metadata.num_rows:
        raise ValueError(f"{path} lists no view yet: make some with `viewgen generate`")
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
    return ValueError(f"cannot read {path} ({(str(error).splitlines() or ['damaged'])[0]}): run `viewgen index` again")
