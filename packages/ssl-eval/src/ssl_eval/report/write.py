"""Reports of results: report.html, report.md and report.csv."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from genviews_core.files import atomic_write, make_folder
from ssl_eval.report.html import render_page
from ssl_eval.report.metadata import RecipeMetadata, format_interval, format_measured, format_number, read_metadata
from ssl_eval.report.plots import against, by_recipe
from ssl_eval.results import Result, read_results
from ssl_eval.table import Column, Section, group_results, tabulate
from ssl_eval.text import escape_csv, escape_markdown

COLUMNS = (
    *("recipe", "data", "task", "metric", "protocol", "mean", "deviation", "seeds"),
    *("low", "high", "backbones", "machines"),
)
FILTERS = {
    "format_number": format_number,
    "format_measured": format_measured,
    "format_interval": format_interval,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of results: its name, the number of results in it, and its SHA-256."""

    path: str
    results: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with its caption."""

    title: str
    protocol: str
    svg: Markup


def write_report(
    results: Sequence[str | Path], out: str | Path, *, metadata: str | Path | None = None, title: str = "Results"
) -> list[Path]:
    """Write report.html, report.md and report.csv from files of results; the same files give the same report.

    Args:
        results: files written by `append_result`; of equal measurements, the one in the last file counts.
        out: the folder, created if missing.
        metadata: a CSV file of values for the x axes of plots; see `read_metadata`.
        title: title of the report.

    Returns:
        The written files, report.html first.

    Raises:
        ValueError: a file is missing, invalid or without results, or `out` cannot be written.
    """
    lines, sources = _read(results)
    sections = group_results(lines)
    recipes = list(dict.fromkeys(recipe for section in sections for recipe in section.rows))
    known = RecipeMetadata() if metadata is None else read_metadata(Path(metadata), recipes)
    texts = {
        "report.html": as_html(title, sections, lines, known, sources),
        "report.md": as_markdown(title, lines),
        "report.csv": as_csv(sections),
    }
    folder = make_folder(out)
    for name, text in texts.items():
        atomic_write(folder / name, text)
    return [folder / name for name in texts]


def as_html(
    title: str,
    sections: Sequence[Section],
    results: Sequence[Result],
    metadata: RecipeMetadata,
    sources: Sequence[Source],
) -> str:
    """Return one self-contained HTML page.

    Args:
        title: its title.
        sections: the tables and plots, one section per data set.
        results: all results.
        metadata: values for the x axes of plots.
        sources: the files that the results were read from.
    """
    return render_page(
        "ssl_eval.report",
        FILTERS,
        title=title,
        totals=count_totals(sections, results),
        sections=[(section, plots_of(section, metadata)) for section in sections],
        results=results,
        metadata=metadata,
        sources=sources,
    )


def count_totals(sections: Sequence[Section], results: Sequence[Result]) -> dict[str, int]:
    """Return the numbers in the header of the page."""
    return {
        "recipe": len({recipe for section in sections for recipe in section.rows}),
        "result": len(results),
        "seed": len({result.seed for result in results}),
        "backbone": len({result.backbone for result in results}),
    }


def plots_of(section: Section, metadata: RecipeMetadata) -> list[Plot]:
    """Plot each column against each metadata column, then by recipe if there are several."""
    against_axes = [
        (column, axis, against(section, column, metadata, axis))
        for column in section.columns
        for axis in metadata.values
    ]
    plots = [_plot(column, f"against {axis}", svg) for column, axis, svg in against_axes if svg is not None]
    several = [column for column in section.columns if len(section.column(column)) > 1]
    return plots + [_plot(column, "by recipe", by_recipe(section, column)) for column in several]


def _plot(column: Column, suffix: str, svg: str) -> Plot:
    return Plot(title=f"{column.task} {column.metric} {suffix}", protocol=column.protocol, svg=Markup(svg))


def as_markdown(title: str, results: Sequence[Result]) -> str:
    """Return the table of results, with notes."""
    machines = "\n".join(
        f"- {escape_markdown(machine)}" for machine in dict.fromkeys(result.machine for result in results)
    )
    note = "Mean ± sample standard deviation (number of seeds); a plain number is one seed."
    return f"# {escape_markdown(title)}\n\n{tabulate(results).markdown()}\n\n{note}\n\nMeasured on:\n\n{machines}\n"


def as_csv(sections: Sequence[Section]) -> str:
    """Return a row per cell; low and high are the bounds of the 95% confidence interval of the mean.

    Text is escaped by `escape_csv`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in sections:
        for recipe, cells in section.rows.items():
            for column, cell in cells.items():
                half = cell.half_width
                bounds = ("", "") if half is None else (cell.mean - half, cell.mean + half)
                deviation = "" if cell.deviation is None else cell.deviation
                origin = [" ".join(dict.fromkeys(each.backbone for each in cell.results))]
                origin += ["; ".join(dict.fromkeys(each.machine for each in cell.results))]
                seeds = " ".join(str(each.seed) for each in cell.results)
                names = (recipe, section.data, column.task, column.metric, column.protocol)
                line = (*names, cell.mean, deviation, seeds, *bounds, *origin)
                writer.writerow([escape_csv(each) if isinstance(each, str) else each for each in line])
    return text.getvalue()


def _read(paths: Sequence[str | Path]) -> tuple[list[Result], list[Source]]:
    """Read the results of all files, the newest of each measurement."""
    newest: dict[tuple, Result] = {}
    sources = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"expected results at {path}, got no file; give one that ssl_eval.append_result writes")
        results = read_results(path)
        if not results:
            raise ValueError(f"expected results in {path}, got none; give a file that ssl_eval.append_result writes")
        for result in results:
            newest.pop(result.identity, None)
            newest[result.identity] = result
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append(Source(path=path.name, results=len(results), sha256=digest))
    return list(newest.values()), sources
