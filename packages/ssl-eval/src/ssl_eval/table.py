"""Tables from result lines: one row per recipe and data set, one column per measurement, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

from ssl_eval.escape import escape_markdown
from ssl_eval.results import Result

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of strings; rich's `print` draws it on a terminal.

    Attributes:
        header: one name per column.
        rows: cells, as many as the header has; "" where nothing was measured.
        title: stands above it.
        caption: and below, on a terminal.
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
        """What rich draws."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        drawn = RichTable(*map(escape, self.header), title=escape(self.title), caption=escape(self.caption))
        for row in self.rows:
            drawn.add_row(*map(escape, row))
        return drawn


def tabulate(results: Iterable[Result]) -> Table:
    """Rows and columns in the order first met; a cell is "mean ± sample standard deviation (number of seeds)".

    A row is named by the recipe, or by the backbone's hash where it has none. Of several results for one cell and seed
    the last counts.
    """
    cells: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    columns: dict[str, None] = {}
    for result in results:
        column = " ".join(part for part in (result.task, result.metric, result.protocol) if part)
        row = (result.recipe or result.backbone, result.data)
        columns[column] = None
        cells.setdefault(row, {}).setdefault(column, {})[result.seed] = result.value
    rows = [(*row, *(format_cell(measured.get(column, {})) for column in columns)) for row, measured in cells.items()]
    return Table(header=("recipe", "data", *columns), rows=rows)


def format_cell(by_seed: dict[int, float]) -> str:
    """One cell: "81.03" for one seed, "81.03 ± 0.21 (3)" for several, "" for none."""
    values = list(by_seed.values())
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{mean(values):.2f} ± {stdev(values):.2f} ({len(values)})"


def decimals_of(figures: Iterable[float | None]) -> int:
    """As many as the most exact of a paper's figures has: 93.56 has two, 67.5 one."""
    return max(len(str(figure).partition(".")[2]) for figure in figures if figure is not None)
