"""A table of a paper: rows of encoders, columns of measurements, and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ssl_eval import Cell, Result, Table, Variant
from ssl_eval.table import decimals_of, format_cell


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
    variant: Variant
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

    def cells(self, row: Row) -> list[Cell]:
        """What is to be measured of an encoder, a protocol a cell."""
        figures: dict[tuple[Variant, str], dict[str, float | None]] = {}
        for column, figure in zip(self.columns, self._figures(row), strict=True):
            figures.setdefault((column.variant, column.suffix), {})[column.metric] = figure
        return [
            Cell(encoder=row.name, variant=variant, suffix=suffix, published=published)
            for (variant, suffix), published in figures.items()
        ]

    def table(self, heading: str, results: Sequence[Result], data: str) -> Table:
        """Ours, mean and deviation over the seeds, each beside the published figure where the grid has any."""
        columns = [[row.name for row in self.rows]]
        header = [heading]
        for column, figures in zip(self.columns, zip(*map(self._figures, self.rows), strict=True), strict=True):
            measured = [format_cell(column.by_seed(row.name, results, data)) for row in self.rows]
            if any(figures):
                header += [f"{column.title}, published", "ours"]
                columns += [_as_published(figures), measured]
            else:
                header.append(column.title)
                columns.append(measured)
        return Table(header=tuple(header), rows=list(zip(*columns, strict=True)))

    def _figures(self, row: Row) -> tuple[float | None, ...]:
        return (*row.published, *(None,) * (len(self.columns) - len(row.published)))


def _as_published(figures: Sequence[float | None]) -> list[str]:
    """With as many decimals as the column has."""
    decimals = decimals_of(figures)
    return ["" if figure is None else f"{figure:.{decimals}f}" for figure in figures]


def unpublished(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same encoders at a size that no paper has."""
    return tuple(replace(row, published=()) for row in rows)


KNN = Column("kNN", Variant(name="dino-knn"), suffix=" k=20")
_CACHED = Variant(name="genview-cifar-linear", cached=True)
LINEAR = (Column("linear top-1", _CACHED), Column("linear top-5", _CACHED, "top5"))
"""For encoders of 32 px: seconds on a CPU."""
