"""A table of a paper: rows of encoders, columns of measurements, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssl_eval import GridCell, ProtocolOverride, Result, Table
from ssl_eval.table import PublishedColumn, tabulate_published


@dataclass(frozen=True)
class Column:
    """One accuracy of every encoder.

    Attributes:
        title: what the paper calls it.
        variant: the protocol.
        metric: "top1" or "top5".
        suffix: what results call the protocol by after the variant's label: " k=20".
    """

    title: str
    variant: ProtocolOverride
    metric: str = "top1"
    suffix: str = ""

    def by_seed(self, recipe: str, results: Sequence[Result], data: str) -> dict[int, float]:
        """What was measured of an encoder on a data set."""
        mine = [found for found in results if (found.recipe, found.data, found.metric) == (recipe, data, self.metric)]
        return {found.seed: found.value for found in mine if found.protocol == self.variant.label + self.suffix}


@dataclass(frozen=True)
class Row:
    """One encoder.

    Attributes:
        name: of the row.
        published: percent, a figure a column; fewer where the paper has none for the last ones.
        options: of apps/pretrain.
        files: options of apps/pretrain whose value the user gives, and what the user calls it: {"views": "adaptive"}.
    """

    name: str
    published: tuple[float | None, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table at one size.

    Attributes:
        recipe: of apps/pretrain.
        columns: how encoders are measured.
        rows: which encoders.
        epochs: of the pretraining, instead of the recipe's.
    """

    recipe: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    epochs: int | None = None

    def cells(self, row: Row) -> list[GridCell]:
        """What is to be measured of an encoder, a protocol a cell."""
        figures: dict[tuple[ProtocolOverride, str], dict[str, float | None]] = {}
        for column, figure in zip(self.columns, self._figures(row), strict=True):
            figures.setdefault((column.variant, column.suffix), {})[column.metric] = figure
        return [
            GridCell(encoder=row.name, variant=variant, suffix=suffix, published=published)
            for (variant, suffix), published in figures.items()
        ]

    def table(self, heading: str, results: Sequence[Result], data: str) -> Table:
        """Return published and own figures side by side; ours are means over seeds."""
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
    """The same encoders at a size that no paper has."""
    return tuple(replace(row, published=()) for row in rows)


KNN = Column("kNN", ProtocolOverride(name="dino-knn"), suffix=" k=20")
_CACHED = ProtocolOverride(name="genview-cifar-linear", cached=True)
LINEAR = (Column("linear top-1", _CACHED), Column("linear top-5", _CACHED, "top5"))
"""For encoders of 32 px: seconds on a CPU."""
