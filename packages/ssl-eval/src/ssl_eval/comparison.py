"""A grid of measurements beside the figures of a paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_eval.results import Result
from ssl_eval.table import Table, decimals_of, format_cell
from ssl_eval.variant import Variant


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One encoder under one protocol, and what was published for it.

    Attributes:
        encoder: names the row; results with this recipe fill it.
        variant: the protocol.
        published: percent by metric ("top1", "top5"); None where the paper has no figure for a metric we measure.
        suffix: what results call the protocol by after the variant's label: " k=20".
    """

    encoder: str
    variant: Variant
    published: dict[str, float | None]
    suffix: str = ""

    @property
    def protocol(self) -> str:
        """What results call it."""
        return self.variant.label + self.suffix


def list_argument(cell: Cell, lists: Path | None) -> list[str]:
    """The argument of apps/evaluate that names a list of labelled images; none where the cell needs none.

    Args:
        cell: whose variant's labels may be "list 1percent.txt".
        lists: the folder of such files.

    Raises:
        ValueError: the cell needs one, and it is not known where it is.
    """
    named = cell.variant.labels or ""
    if not named.startswith("list "):
        return []
    if lists is None:
        raise ValueError(f"{cell.protocol} needs a list: give the folder of SimCLR's lists with --lists")
    return [f"--list={lists / named.removeprefix('list ')}"]


def unmeasured(
    cells: Sequence[Cell],
    results: Sequence[Result],
    *,
    data: str,
    seed: int = 0,
    backbones: Mapping[str, str] | None = None,
) -> list[Cell]:
    """The cells of which some metric has no result on this data set with this seed.

    Args:
        cells: what is wanted.
        results: what there is.
        data: name of the data set.
        seed: of the encoders' training.
        backbones: hash of the weights by encoder; results of other weights do not count.
    """
    weights = backbones or {}
    here = [
        found
        for found in results
        if (found.data, found.seed, found.backbone) == (data, seed, weights.get(found.recipe, found.backbone))
    ]
    have = {(found.recipe, found.protocol, found.metric) for found in here}
    return [cell for cell in cells if any((cell.encoder, cell.protocol, each) not in have for each in cell.published)]


def compare(cells: Sequence[Cell], results: Sequence[Result], *, data: str) -> Table:
    """A row an encoder; for each protocol and metric two columns, the paper's figure and ours; "" where there is none.

    The paper's column is left out where no row has a figure. Ours is the mean over seeds, with its deviation where
    there are several.
    """
    told = {(cell.encoder, cell.protocol, each): cell.published[each] for cell in cells for each in cell.published}
    columns = dict.fromkeys((protocol, metric) for _, protocol, metric in told)
    published = {where[1:] for where, figure in told.items() if figure is not None}
    decimals = {
        column: decimals_of([figure for where, figure in told.items() if where[1:] == column]) for column in published
    }
    ours: dict[tuple[str, str, str], dict[int, float]] = {}
    for found in results:
        if found.data == data:
            ours.setdefault((found.recipe, found.protocol, found.metric), {})[found.seed] = found.value
    rows = []
    for encoder in dict.fromkeys(cell.encoder for cell in cells):
        row = [encoder]
        for column in columns:
            if column in published:
                figure = told.get((encoder, *column))
                row.append("" if figure is None else f"{figure:.{decimals[column]}f}")
            row.append(format_cell(ours.get((encoder, *column), {})))
        rows.append(tuple(row))
    header = ["encoder"]
    for column in columns:
        whose = ("published", "ours") if column in published else ("ours",)
        header += [f"{' '.join(column)}, {each}" for each in whose]
    return Table(header=tuple(header), rows=rows, title="accuracy in percent")


def named_folders(pairs: Sequence[str], cells: Sequence[Cell]) -> dict[str, str]:
    """The folder of each encoder, from NAME=FOLDER.

    Raises:
        ValueError: one is of another form, or its name is no row's.
    """
    rows = dict.fromkeys(cell.encoder for cell in cells)
    folders = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if name not in rows or not folder:
            raise ValueError(f"encoder {pair!r}: give NAME=FOLDER, NAME one of {', '.join(rows)}")
        folders[name] = folder
    return folders
