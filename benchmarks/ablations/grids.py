"""Tables of the papers: rows of encoders, columns of accuracies, and published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssl_eval import GridCell, ProtocolOverride, Result, Table
from ssl_eval.table import PublishedColumn, tabulate_published


@dataclass(frozen=True)
class Column:
    """An accuracy that is measured for every encoder.

    Attributes:
        title: title in the paper.
        variant: evaluation protocol.
        metric: "top1" or "top5".
        suffix: suffix of the protocol's label in results, such as " k=20".
    """

    title: str
    variant: ProtocolOverride
    metric: str = "top1"
    suffix: str = ""

    def by_seed(self, recipe: str, results: Sequence[Result], data: str) -> dict[int, float]:
        """Return the results of an encoder on a data set, by seed."""
        mine = [found for found in results if (found.recipe, found.data, found.metric) == (recipe, data, self.metric)]
        return {found.seed: found.value for found in mine if found.protocol == self.variant.label + self.suffix}


@dataclass(frozen=True)
class Row:
    """An encoder.

    Attributes:
        name: name of the row.
        published: published results in percent, one per column; those of the last columns may be missing.
        options: options of apps/pretrain.
        files: options of apps/pretrain with a path that the user gives by another name, as in {"views": "adaptive"}.
    """

    name: str
    published: tuple[float | None, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table at one size.

    Attributes:
        recipe: name of the recipe.
        columns: accuracies to measure.
        rows: encoders to train.
        epochs: epochs of pretraining; None for the recipe's.
    """

    recipe: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    epochs: int | None = None

    def cells(self, row: Row) -> list[GridCell]:
        """Return the evaluations of an encoder, one cell per protocol."""
        figures: dict[tuple[ProtocolOverride, str], dict[str, float | None]] = {}
        for column, figure in zip(self.columns, self._figures(row), strict=True):
            figures.setdefault((column.variant, column.suffix), {})[column.metric] = figure
        return [
            GridCell(encoder=row.name, variant=variant, suffix=suffix, published=published)
            for (variant, suffix), published in figures.items()
        ]

    def table(self, heading: str, results: Sequence[Result], data: str) -> Table:
        """Return a table of published and own results; ours are means over seeds."""
        figures = zip(*map(self._figures, self.rows), strict=True)
        columns = [
            PublishedColumn(
                title=column.title,
                published=published,
                ours=[column.by_seed(row.name, results, data) for row in self.rows],
            )
            for column, published in zip(self.columns, figures, strict=True)
        ]
        return tabulate_published(heading, [row.name for row in self.rows], columns)

    def _figures(self, row: Row) -> tuple[float | None, ...]:
        return (*row.published, *(None,) * (len(self.columns) - len(row.published)))


def unpublished(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the same rows without published results."""
    return tuple(replace(row, published=()) for row in rows)


KNN = Column("kNN", ProtocolOverride(name="dino-knn"), suffix=" k=20")
_CACHED = ProtocolOverride(name="genview-cifar-linear", cached=True)
LINEAR = (Column("linear top-1", _CACHED), Column("linear top-5", _CACHED, "top5"))
"""Columns for encoders of 32 px, evaluated in seconds on a CPU."""
