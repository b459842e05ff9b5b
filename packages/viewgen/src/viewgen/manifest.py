"""The record of every view: rows, the journals they are appended to, and the Parquet file they are folded into."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

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
FOLD_ROWS = 100_000  # rows per Parquet row group


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


class Journal:
    """The rows of one shard, appended one by one; what a kill tore off the last line is cut at opening.

    Args:
        path: the file; made if it is missing.

    Raises:
        ValueError: if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file: BinaryIO = path.open("r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another process is writing {path}: give each process its own shard") from None
        cut_torn_line(self._file)

    def append(self, row: Row) -> None:
        """Write a row and hand it to the operating system."""
        self._file.write((json.dumps(asdict(row)) + "\n").encode())
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def cut_torn_line(file: BinaryIO) -> None:
    """Cut what follows the last newline, and stand at the end."""
    end = file.seek(0, os.SEEK_END)
    block = 1 << 16
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    file.truncate(end)
    file.seek(end)


def journal_paths(views_root: Path) -> list[Path]:
    """All journals, sorted."""
    return sorted((views_root / "journals").glob("*-of-*.jsonl"))


def journal_rows(path: Path) -> Iterator[dict]:
    """The whole rows of one journal; a torn last line is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def fold_journals(views_root: str | os.PathLike[str]) -> Path:
    """Write all journals as ``manifest.parquet``, sorted by key and k, one row per view.

    The same views give the same bytes, whatever the shards and interruptions.

    Returns:
        The file's path.

    Raises:
        ValueError: if there is no journal.
    """
    root = Path(views_root)
    paths = journal_paths(root)
    if not paths:
        raise ValueError(f"{root} has no journals: make views there with generate_views")
    rows = {row["path"]: row for path in paths for row in journal_rows(path)}
    ordered = sorted(rows.values(), key=lambda row: (row["key"], row["k"]))
    target = root / "manifest.parquet"
    temporary = root / "manifest.parquet.tmp"
    with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(ordered), FOLD_ROWS):
            writer.write_table(pa.Table.from_pylist(ordered[start : start + FOLD_ROWS], SCHEMA))
    temporary.replace(target)
    return target
