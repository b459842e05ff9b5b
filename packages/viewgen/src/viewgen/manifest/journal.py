"""Append-only JSON lines of a run: journals of finished views, and the images that failed."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from genviews_core.files import writing
from genviews_core.lock import lock_file
from viewgen.manifest.table import SCHEMA, Row, parse_row, parse_rows

READ_BYTES = 1 << 24  # of a journal at a time


class Journal:
    """Rows of one worker, appended as views are completed; a truncated last line is removed on opening.

    Args:
        path: the file; made if it is missing.

    Raises:
        ValueError: if another process has it open (the message names it), or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._lock = lock_file(path)
        self._lock.__enter__()
        with writing(path):
            path.touch()
            self._file: BinaryIO = path.open("r+b")
            cut_torn_line(self._file)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows and hand them to the operating system."""
        self._file.write("".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._lock.__exit__(None, None, None)


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
    """Return all journals, sorted.

    Raises:
        ValueError: if there is none.
    """
    paths = sorted((views_root / "journals").glob("*.jsonl"))
    if not paths:
        raise ValueError(f"expected journals in {views_root}, got none; generate views there with `viewgen generate`")
    return paths


def journal_lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of one journal; skip a truncated last line."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def journal_tables(
    path: Path, columns: Sequence[str] = tuple(SCHEMA.names), broken: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the complete rows of one journal, some megabytes at a time.

    Args:
        path: the journal.
        columns: columns to read.
        broken: list to which "journals/NAME.jsonl, line N: why" is added for each invalid line.

    Raises:
        ValueError: a line is invalid and ``broken`` is not given; the message names the first one.
    """
    rest, first = b"", 1
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                table = parse_rows(whole + newline, columns)
                yield _valid_rows(whole, columns, path, first, broken) if table is None else table
                first += whole.count(b"\n") + 1


def _valid_rows(whole: bytes, columns: Sequence[str], path: Path, first: int, broken: list[str] | None) -> pa.Table:
    """Parse line by line what ``parse_rows`` could not read at once."""
    rows = []
    for number, line in enumerate(whole.split(b"\n"), first):
        row = parse_row(line) if line.strip() else None
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None and broken is None:
            remedy = f"`viewgen verify {path.parent.parent} --repair` removes it"
            raise ValueError(f"{path}, line {number}: {row}; {remedy}")
        elif row is not None and broken is not None:
            broken.append(f"{path.parent.name}/{path.name}, line {number}: {row}")
    return pa.Table.from_pylist(rows, pa.schema([SCHEMA.field(name) for name in columns]))


def recorded_paths(views_root: Path, broken: list[str] | None = None) -> Iterator[str]:
    """Yield the paths of all rows of all journals, possibly repeated; for ``broken`` see ``journal_tables``."""
    for journal in journal_paths(views_root):
        for table in journal_tables(journal, ["path"], broken):
            yield from table.column("path").to_pylist()


class Failures:
    """The file ``failures.jsonl``, to which several processes may append at once.

    Args:
        path: the file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._known = {failure["key"] for failure in read_failures(path)} if path.exists() else set()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if _torn(path):
            os.write(self._file, b"\n")  # ends a line that a kill tore off

    def add(self, key: str, error: str) -> None:
        """Append a line, unless the key has one."""
        if key not in self._known:
            self._known.add(key)
            os.write(self._file, (json.dumps({"key": key, "error": error}) + "\n").encode())

    def add_folder(self, folder: str, error: OSError) -> None:
        """Append a line for a folder that cannot be listed."""
        self.add(folder, f"cannot list the folder: {error.strerror}")

    def __del__(self) -> None:
        os.close(self._file)


def read_failures(path: Path) -> Iterator[dict[str, str]]:
    """Yield {"key", "error"} of each complete line; invalid lines are skipped."""
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                failure = json.loads(line)
                if isinstance(failure, dict) and isinstance(failure.get("key"), str):
                    yield failure


def _torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read() != b"\n"
