"""Tables of results: a section per data set, a row per recipe, a column per measurement, statistics over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING

from ssl_eval.results import Result
from ssl_eval.text import escape_markdown

if TYPE_CHECKING:
    from rich.table import Table as RichTable

LOWER_IS_BETTER = frozenset({"fid", "lpips", "milliseconds", "parameters", "seconds"})
NEITHER_IS_BETTER = frozenset({"cosine", "ssim"})
"""A view may be too similar to its image as well as too different."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of strings; rich's `print` draws it on a terminal.

    Attributes:
        header: one name per column.
        rows: cells, as many as in the header; "" if nothing was measured.
        title: heading.
        caption: note below the table, on a terminal.
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    title: str = ""
    caption: str = ""

    def markdown(self) -> str:
        """Return the table in GitHub Flavored Markdown, with escaped cells."""
        dashes = ["---"] * 2 + ["---:"] * (len(self.header) - 2)
        header, *rows = ([escape_markdown(cell) for cell in line] for line in (self.header, *self.rows))
        return "\n".join(f"| {' | '.join(line)} |" for line in (header, dashes, *rows))

    def __rich__(self) -> RichTable:
        """Return the table for rich."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        table = RichTable(*map(escape, self.header), title=escape(self.title), caption=escape(self.caption))
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


@dataclass(frozen=True, order=True)
class Column:
    """A measurement; values of different columns are not comparable."""

    task: str
    metric: str
    protocol: str

    @property
    def name(self) -> str:
        """The name in tables."""
        return " ".join(part for part in (self.task, self.metric, self.protocol) if part)


@dataclass(frozen=True)
class Cell:
    """The results of one recipe in one column, at least one: one per seed, in the order of the seeds."""

    results: tuple[Result, ...]

    @property
    def values(self) -> list[float]:
        """One value per seed."""
        return [result.value for result in self.results]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; None for one seed."""
        return stdev(self.values) if len(self.results) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95% confidence interval of the mean; None for one seed."""
        return confidence_interval(self.values)

    def __str__(self) -> str:
        """Return "81.03" for one seed, "81.03 ± 0.21 (3)" for several."""
        return format_mean(self.values)


@dataclass
class Section:
    """All results on one data set.

    Attributes:
        data: its name.
        columns: in order of first appearance.
        rows: cells by recipe and column, recipes in order of first appearance.
    """

    data: str
    columns: list[Column] = field(default_factory=list)
    rows: dict[str, dict[Column, Cell]] = field(default_factory=dict)

    def column(self, column: Column) -> dict[str, Cell]:
        """Return the cells of one column by recipe."""
        return {recipe: cells[column] for recipe, cells in self.rows.items() if column in cells}

    def best(self, column: Column) -> set[str]:
        """Return the recipes with the best mean; none if there is only one, or if neither direction is better."""
        means = {recipe: cell.mean for recipe, cell in self.column(column).items()}
        if len(means) < 2 or column.metric in NEITHER_IS_BETTER:
            return set()
        best = min(means.values()) if column.metric in LOWER_IS_BETTER else max(means.values())
        return {recipe for recipe, value in means.items() if value == best}


@dataclass(frozen=True, kw_only=True)
class PublishedColumn:
    """A column of published and own figures.

    Attributes:
        title: the name of the column.
        published: one figure per row; None where the paper has none. They are shown with the most decimals of any.
        ours: own values by seed, for each row; empty where nothing was measured.
    """

    title: str
    published: Sequence[float | None]
    ours: Sequence[dict[int, float]]


def group_results(results: Iterable[Result]) -> list[Section]:
    """Group results into sections, in order of first appearance; the last result for a cell and seed counts.

    A row is named by the recipe, or by the hash of the backbone if the recipe is empty.
    """
    by_seed: dict[tuple[str, str, Column], dict[int, Result]] = {}
    for result in results:
        key = (result.data, result.recipe or result.backbone, Column(result.task, result.metric, result.protocol))
        by_seed.setdefault(key, {})[result.seed] = result
    sections: dict[str, Section] = {}
    for (data, recipe, column), seeds in by_seed.items():
        section = sections.setdefault(data, Section(data))
        if column not in section.columns:
            section.columns.append(column)
        section.rows.setdefault(recipe, {})[column] = Cell(tuple(seeds[seed] for seed in sorted(seeds)))
    return list(sections.values())


def tabulate(results: Iterable[Result]) -> Table:
    """Return one table of all results: a row per recipe and data set, a column per measurement, see `Cell.__str__`."""
    results = list(results)
    columns = dict.fromkeys(Column(result.task, result.metric, result.protocol) for result in results)
    rows = dict.fromkeys((result.recipe or result.backbone, result.data) for result in results)
    sections = {section.data: section for section in group_results(results)}
    lines = [
        (recipe, data, *(str(sections[data].rows[recipe].get(column, "")) for column in columns))
        for recipe, data in rows
    ]
    return Table(header=("recipe", "data", *(column.name for column in columns)), rows=lines)


def tabulate_published(header: str, rows: Sequence[str], columns: Sequence[PublishedColumn], title: str = "") -> Table:
    """Return a table of published and own figures; the published ones are omitted if no row of the column has any.

    Args:
        header: name of the first column.
        rows: names of the rows.
        columns: the other columns.
        title: title of the table.
    """
    names, cells = [header], [list(rows)]
    suffix = ", ours" if any(figure is not None for column in columns for figure in column.published) else ""
    for column in columns:
        published = [figure for figure in column.published if figure is not None]
        if published:
            decimals = max(len(str(figure).partition(".")[2]) for figure in published)
            names.append(f"{column.title}, published")
            cells.append(["" if figure is None else f"{figure:.{decimals}f}" for figure in column.published])
        names.append(column.title + suffix)
        cells.append([format_mean(list(seeds.values())) for seeds in column.ours])
    return Table(header=tuple(names), rows=list(zip(*cells, strict=True)), title=title)


def format_mean(values: Sequence[float]) -> str:
    """Return "81.03" for one value, "81.03 ± 0.21 (3)" with the sample deviation for several, "" for none."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{mean(values):.2f} ± {stdev(values):.2f} ({len(values)})"


def format_mean_with_error(values: Sequence[float]) -> str:
    """Return "81.0" for one value, "81.0 ± 0.2" with the standard error of the mean for several, "" for none."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{mean(values):.1f} ± {standard_error(values):.1f}"


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of two values or more."""
    return stdev(values) / math.sqrt(len(values))


def confidence_interval(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Return half the width of Student's confidence interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t  # takes half a second to import

    return float(t.ppf((1 + confidence) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
