"""Do the views on disk and their rows agree? Find and repair what does not."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from viewgen.files import replace_bytes
from viewgen.manifest import fold_journals, journal_paths, journal_rows

VIEW_FILE = re.compile(r".+\.\d+\.(png|jpg)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What is wrong with a folder of views; sorted paths relative to it.

    Attributes:
        rows_without_file: recorded, but not there.
        files_without_row: there, but not recorded.
        damaged: their bytes are not those recorded (looked for with ``check_bytes`` only).
    """

    rows_without_file: list[str]
    files_without_row: list[str]
    damaged: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.rows_without_file or self.files_without_row or self.damaged)


def verify_views(
    views_root: str | os.PathLike[str], repair: bool = False, *, check_bytes: bool = False
) -> VerifyReport:
    """Compare journals and files.

    Args:
        views_root: the views.
        repair: delete files without a row and damaged ones, drop rows without a file, and fold again; the next
            ``generate_views`` makes what is missing. No process may be generating meanwhile.
        check_bytes: read every file and compare its SHA-256.

    Raises:
        ValueError: if the folder has no journals.
    """
    root = Path(views_root)
    if not journal_paths(root):
        raise ValueError(f"{root} has no journals: make views there with generate_views")
    recorded = {row["path"]: row["sha256"] for path in journal_paths(root) for row in journal_rows(path)}
    files = set(view_files(root))
    both = sorted(recorded.keys() & files)
    report = VerifyReport(
        rows_without_file=sorted(recorded.keys() - files),
        files_without_row=sorted(files - recorded.keys()),
        damaged=[path for path in both if check_bytes and _sha256(root / path) != recorded[path]],
    )
    if repair:
        _repair(root, report)
    return report


def view_files(views_root: Path) -> Iterator[str]:
    """The relative POSIX paths of all files named like views; no file is opened."""
    for folder, _, names in os.walk(views_root):
        prefix = Path(folder).relative_to(views_root).as_posix()
        for name in names:
            if VIEW_FILE.fullmatch(name):
                yield name if prefix == "." else f"{prefix}/{name}"


def _repair(root: Path, report: VerifyReport) -> None:
    for path in (*report.files_without_row, *report.damaged):
        (root / path).unlink()
    gone = {*report.rows_without_file, *report.damaged}
    for journal in journal_paths(root):
        rows = [row for row in journal_rows(journal) if row["path"] not in gone]
        replace_bytes(journal, "".join(json.dumps(row) + "\n" for row in rows).encode())
    fold_journals(root)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
