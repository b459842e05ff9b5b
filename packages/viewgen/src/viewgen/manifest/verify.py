"""Check that the views on disk agree with their rows, and repair differences."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest
from itertools import compress, islice
from pathlib import Path

from genviews_core.files import writing
from genviews_core.keys import path_inside
from genviews_core.lock import lock_file
from viewgen.keys import BLOCK, HashedPathSet
from viewgen.manifest.journal import journal_lines, journal_paths, recorded_paths
from viewgen.manifest.merge import merge_journals, sorted_rows
from viewgen.manifest.table import parse_row

VIEW_FILE = re.compile(r".+\.\d+\.(png|jpg|tif)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Differences between rows and files of a views folder; sorted paths relative to it.

    Attributes:
        views: recorded ones, whole or not.
        rows_without_file: recorded, but not there.
        files_without_row: there, but not recorded.
        damaged: views whose bytes differ from the recorded hash, or links out of the folder (only with
            ``check_bytes``).
        broken_lines: "journals/NAME.jsonl, line N: why" for each invalid line of a journal.
    """

    views: int
    rows_without_file: list[str]
    files_without_row: list[str]
    damaged: list[str]
    broken_lines: list[str]

    @property
    def clean(self) -> bool:
        """Return whether there is no difference."""
        return not (self.rows_without_file or self.files_without_row or self.damaged or self.broken_lines)


def verify_views(
    views_root: str | os.PathLike[str], repair: bool = False, *, check_bytes: bool = False
) -> VerifyReport:
    """Compare journals and files.

    Args:
        views_root: the views.
        repair: delete files without a row and damaged ones, drop rows without a file and broken lines, and merge the
            journals again; the next ``generate_views`` generates what is missing.
        check_bytes: read every file and compare its SHA-256.

    Raises:
        ValueError: if the folder has no journals, or with ``repair`` while a process is generating.
    """
    root = Path(views_root)
    with contextlib.ExitStack() as locks:
        for journal in journal_paths(root) if repair else ():
            locks.enter_context(lock_file(journal))
        return _verify(root, repair, check_bytes)


def _verify(root: Path, repair: bool, check_bytes: bool) -> VerifyReport:
    files = HashedPathSet(view_files(root))
    views, without_file, damaged, broken = 0, [], [], list[str]()
    for table in sorted_rows(root, broken):
        paths = table.column("path").to_pylist()
        there = files.contains(paths)
        views += len(paths)
        without_file += [path for path, is_there in zip(paths, there, strict=True) if not is_there]
        if check_bytes:
            sums = zip(paths, table.column("sha256").to_pylist(), there, strict=True)
            damaged += [path for path, digest, is_there in sums if is_there and _sha256(root, path) != digest]
    report = VerifyReport(
        views=views,
        rows_without_file=sorted(without_file),
        files_without_row=_named(files - HashedPathSet(recorded_paths(root, [])), root),
        damaged=sorted(damaged),
        broken_lines=broken,
    )
    if repair and not report.clean:
        with writing(root):
            _repair(root, report)
    return report


def view_files(views_root: Path) -> Iterator[str]:
    """Yield the relative POSIX paths of all files named like views, without opening them."""
    for folder, _, names in os.walk(views_root):
        prefix = Path(folder).relative_to(views_root).as_posix()
        for name in names:
            if VIEW_FILE.fullmatch(name):
                yield name if prefix == "." else f"{prefix}/{name}"


def _named(some: HashedPathSet, root: Path) -> list[str]:
    """Return the sorted paths of those files whose hashes are in a set."""
    walk, found = view_files(root), []
    while some and (block := list(islice(walk, BLOCK))):
        found += compress(block, some.contains(block))
    return sorted(found)


def _repair(root: Path, report: VerifyReport) -> None:
    for path in (*report.files_without_row, *report.damaged):
        (root / path).unlink()
    gone = HashedPathSet([*report.rows_without_file, *report.damaged])
    for journal in journal_paths(root):
        kept = journal.with_suffix(".tmp")
        lines = journal_lines(journal)
        with kept.open("wb") as file:
            while block := list(islice(lines, BLOCK)):
                rows = [(line, row) for line in block if isinstance(row := parse_row(line), dict)]
                dropped = gone.contains([row["path"] for _, row in rows])
                file.writelines(line for (line, _), drop in zip(rows, dropped, strict=True) if not drop)
        kept.replace(journal)
    merge_journals(root)


def _sha256(root: Path, path: str) -> str | None:
    """Return the SHA-256 of a view's bytes, or None if it is a link out of the folder."""
    try:
        file = path_inside(root, path)
    except ValueError:
        return None
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
