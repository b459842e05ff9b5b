"""The record of every view: its row, and the journals the rows are appended to."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.json

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
READ_BYTES = 1 << 24  # of a journal at a time


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
    """The rows of one worker, appended as its views are whole; what a kill tore off the last line is cut at opening.

    Args:
        path: the file; made if it is missing.

    Raises:
        ValueError: if another process has it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.name = path.stem
        self._file: BinaryIO = path.open("r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another process is writing {path}: give each process its own shard") from None
        cut_torn_line(self._file)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows and hand them to the operating system."""
        self._file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())
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
    """All journals, sorted.

    Raises:
        ValueError: if there is none.
    """
    paths = sorted((views_root / "journals").glob("*.jsonl"))
    if not paths:
        raise ValueError(f"{views_root} has no journals: make views there with generate_views")
    return paths


def journal_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of one journal; a torn last line is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def journal_tables(path: Path, columns: Sequence[str] = tuple(SCHEMA.names)) -> Iterator[pa.Table]:
    """The whole rows of one journal, some megabytes at a time."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    rest = b""
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                read = pyarrow.json.ReadOptions(block_size=len(whole) + 1)
                yield pyarrow.json.read_json(BytesIO(whole + newline), read, options).cast(schema)


def recorded_paths(views_root: Path) -> Iterator[str]:
    """The paths of all rows of all journals, some perhaps more than once."""
    for journal in journal_paths(views_root):
        for table in journal_tables(journal, ["path"]):
            yield from table.column("path").to_pylist()
