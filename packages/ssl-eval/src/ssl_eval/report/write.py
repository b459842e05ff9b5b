"""A report: results in, three files out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genviews_core.files import atomic_write, make_folder
from ssl_eval.report.facts import Facts, read_facts
from ssl_eval.report.files import as_csv, as_markdown
from ssl_eval.report.page import render
from ssl_eval.report.sections import sections_of
from ssl_eval.results import Result, read_results


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of results: its path, results that count, and SHA-256."""

    path: str
    results: int
    sha256: str


def write_report(
    results: Sequence[str | Path], out: str | Path, *, facts: str | Path | None = None, title: str = "Results"
) -> list[Path]:
    """Write report.html, report.md and report.csv from files of results; the same files give the same report.

    Args:
        results: as `append_result` writes them; a later file's line takes the place of the same measurement before.
        out: folder, made where it is missing.
        facts: a CSV file of what plots are drawn against; see `read_facts`.
        title: of the report.

    Returns:
        The files written, the page first.

    Raises:
        ValueError: a file is missing, has no result, or is not what it should be; or out cannot be written.
    """
    found, sources = _read(results)
    sections = sections_of(found)
    recipes = list(dict.fromkeys(recipe for section in sections for recipe in section.rows))
    known = Facts() if facts is None else read_facts(Path(facts), recipes)
    texts = {
        "report.html": render(title, sections, found, known, sources),
        "report.md": as_markdown(title, found),
        "report.csv": as_csv(sections),
    }
    folder = make_folder(out)
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return [folder / name for name in texts]


def _read(paths: Sequence[str | Path]) -> tuple[list[Result], list[Source]]:
    """The results of all files, the newest of each measurement."""
    newest: dict[tuple, Result] = {}
    sources = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"no results at {path}: give a file of JSON lines, as ssl_eval.append_result writes it")
        found = read_results(path)
        if not found:
            raise ValueError(f"{path} holds no result: give a file of JSON lines, as ssl_eval.append_result writes it")
        for result in found:
            newest.pop(result.identity, None)
            newest[result.identity] = result
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append(Source(path=path.name, results=len(found), sha256=digest))
    return list(newest.values()), sources
