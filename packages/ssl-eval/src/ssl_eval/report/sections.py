"""Results in order: a section per data set, a row per recipe, a column per measurement, in a cell a result per seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mean, stdev

from ssl_eval.report.student import half_width
from ssl_eval.results import Result

LOWER_IS_BETTER = frozenset({"fid", "lpips", "milliseconds", "parameters", "seconds"})
NEITHER_IS_BETTER = frozenset({"cosine", "ssim"})
"""A view may be too near to its image as well as too far."""


@dataclass(frozen=True, order=True)
class Column:
    """One measurement: what makes values comparable."""

    task: str
    metric: str
    protocol: str

    @property
    def name(self) -> str:
        """As tables call it."""
        return " ".join(part for part in (self.task, self.metric, self.protocol) if part)


@dataclass(frozen=True)
class Cell:
    """What was measured of one recipe: one result per seed, at least one."""

    results: tuple[Result, ...]

    @property
    def values(self) -> list[float]:
        """One per seed."""
        return [result.value for result in self.results]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample's; None for one seed."""
        return stdev(self.values) if len(self.results) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Of the 95% interval of the mean; None for one seed."""
        return half_width(self.values)


@dataclass
class Section:
    """All that was measured on one data set.

    Attributes:
        data: its name.
        columns: in the order first met.
        rows: cells by recipe and column, recipes in the order first met.
    """

    data: str
    columns: list[Column] = field(default_factory=list)
    rows: dict[str, dict[Column, Cell]] = field(default_factory=dict)

    def column(self, column: Column) -> dict[str, Cell]:
        """The cells of one measurement by recipe."""
        return {recipe: cells[column] for recipe, cells in self.rows.items() if column in cells}

    def best(self, column: Column) -> set[str]:
        """The recipes with the best mean; none if there is but one, or if neither direction is better."""
        means = {recipe: cell.mean for recipe, cell in self.column(column).items()}
        if len(means) < 2 or column.metric in NEITHER_IS_BETTER:
            return set()
        wanted = min(means.values()) if column.metric in LOWER_IS_BETTER else max(means.values())
        return {recipe for recipe, value in means.items() if value == wanted}


def sections_of(results: Iterable[Result]) -> list[Section]:
    """Sections in the order first met; of several results for one cell and seed the last counts.

    A row is named by the recipe, or by the backbone's hash where it has none.
    """
    by_seed: dict[tuple[str, str, Column], dict[int, Result]] = {}
    for result in results:
        place = (result.data, result.recipe or result.backbone, Column(result.task, result.metric, result.protocol))
        by_seed.setdefault(place, {})[result.seed] = result
    sections: dict[str, Section] = {}
    for (data, recipe, column), found in by_seed.items():
        section = sections.setdefault(data, Section(data))
        if column not in section.columns:
            section.columns.append(column)
        section.rows.setdefault(recipe, {})[column] = Cell(tuple(found[seed] for seed in sorted(found)))
    return list(sections.values())
