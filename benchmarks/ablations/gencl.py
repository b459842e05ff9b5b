"""GenCL's ablations: its tables 1, 2 and 3.

ResNet-50 by VICReg, 100 epochs of ImageNet, VICReg's own evaluations. Views: IC-GAN's (noise-based) or MaskGIT's
(mask-based). The paper was not published with code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.ablations.grids import KNN, LINEAR, Column, Grid, Row, unpublished
from benchmarks.ablations.run_grid import PaperTable
from ssl_eval import GridCell, ProtocolOverride, list_argument

_LINEAR = ProtocolOverride(name="vicreg-linear")
_ONE, _TEN = (ProtocolOverride(name=f"vicreg-semi-{each}", labels=f"list {each}percent.txt") for each in (1, 10))
COLUMNS = (
    Column("linear top-1", _LINEAR),
    Column("linear top-5", _LINEAR, "top5"),
    Column("1% top-1", _ONE),
    Column("10% top-1", _TEN),
    Column("1% top-5", _ONE, "top5"),
    Column("10% top-5", _TEN, "top5"),
)
"""Columns in the order of the paper."""
_SMALL_TEN = ProtocolOverride(name="vicreg-semi-10", batch_size=64, labels="balanced")
SMALL_COLUMNS = (KNN, *LINEAR, Column("10% top-1", _SMALL_TEN), Column("10% top-5", _SMALL_TEN, "top5"))


@dataclass(frozen=True, kw_only=True)
class GenCLTable(PaperTable):
    """Options shared by the tables of GenCL."""

    views: Path
    """Synthetic views of the training images, of the kind that the grid is named for."""
    lists: Path | None = None
    """Folder with SimCLR's 1percent.txt and 10percent.txt, for the grids of ImageNet."""

    def inputs(self) -> Mapping[str, Path | None]:
        """See PaperTable."""
        return {"--views": self.views}

    def labels(self, cell: GridCell) -> list[str]:
        """See PaperTable.

        Raises:
            ValueError: a list is needed but --lists is not given.
        """
        return list_argument(cell, self.lists)


BASELINE = Row("0%", (65.8, 86.6, 42.9, 60.7, 70.2, 84.1), {"policy": "none"})
NOISE_BASED = {
    25: (66.3, 87.0, 43.9, 61.1, 71.4, 84.3),
    50: (65.9, 86.7, 42.9, 60.5, 70.4, 83.6),
    75: (65.3, 86.1, 41.7, 59.6, 69.5, 82.9),
    100: (64.0, 85.0, 40.7, 58.9, 68.3, 82.5),
}
MASK_BASED = {
    25: (67.9, 87.9, 47.2, 62.8, 73.7, 85.3),
    50: (68.5, 88.3, 48.3, 63.3, 74.7, 85.5),
    75: (68.5, 88.4, 48.5, 63.2, 74.6, 85.5),
    100: (67.5, 87.5, 48.5, 62.9, 74.2, 85.1),
}


def rates(kind: str, published: Mapping[int, tuple[float, ...]]) -> tuple[Row, ...]:
    """Return a row without views and one per sampling rate; synthetic views have fewer augmentations."""
    return (
        BASELINE,
        *(Row(f"{kind}{percent}%", told, {"policy": "gencl", "view-probability": percent / 100}, {"views": "--views"})
          for percent, told in published.items()),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SamplingRate(GenCLTable):
    """GenCL's gamma: the fraction of the images that have a synthetic view."""

    HEADING: ClassVar[str] = "sampling rate"
    GRIDS: ClassVar[Mapping[str, Grid]] = {
        "noise-based": Grid(recipe="imagenet-vicreg", columns=COLUMNS, rows=rates("noise-based ", NOISE_BASED)),
        "mask-based": Grid(recipe="imagenet-vicreg", columns=COLUMNS, rows=rates("mask-based ", MASK_BASED)),
        "small": Grid(recipe="small-vicreg", columns=SMALL_COLUMNS, rows=unpublished(rates("", MASK_BASED)), epochs=10),
    }

    grid: str = "mask-based"
    """noise-based, mask-based, or small."""


PAIRED = {
    None: (54.4, 78.4, 32.9, 49.3, 60.5, 75.1),
    "crop": (62.8, 84.0, 40.6, 58.3, 68.3, 82.0),
    "flip": (57.4, 80.5, 35.7, 52.6, 63.8, 77.8),
    "solarize": (55.8, 79.7, 32.9, 50.5, 61.1, 76.2),
    "jitter": (55.7, 79.3, 32.5, 50.1, 60.5, 76.0),
    "blur": (54.2, 78.3, 32.1, 49.3, 60.0, 75.2),
    "gray": (52.7, 77.3, 30.6, 48.4, 58.5, 74.6),
}


def paired(kept: str | None, published: tuple[float, ...]) -> Row:
    """Return a row with pairs of a real and a synthetic view, both augmented by a single operation."""
    left_out = tuple(each for each in PAIRED if each not in (None, kept))
    options = {"policy": "genview", "view-probability": 1.0, "drop-augmentations": left_out}
    return Row(f"{kept}, generative" if kept else "generative", published, options, {"views": "--views"})


@dataclass(frozen=True, kw_only=True)
class PairwiseAugmentations(GenCLTable):
    """Synthetic views with one hand-made augmentation at a time, as often as VICReg applies it.

    The synthetic view is first or second at random, because VICReg blurs the first view more often and solarizes the
    second.
    """

    HEADING: ClassVar[str] = "augmentations"
    _ROWS: ClassVar[tuple[Row, ...]] = tuple(paired(kept, told) for kept, told in PAIRED.items())
    _SMALL_ROWS: ClassVar[tuple[Row, ...]] = tuple(row for row in _ROWS if not row.name.startswith("blur"))
    """Without blur, which small-vicreg does not use at 32 px."""
    GRIDS: ClassVar[Mapping[str, Grid]] = {
        "noise-based": Grid(recipe="imagenet-vicreg", columns=COLUMNS, rows=_ROWS),
        "small": Grid(recipe="small-vicreg", columns=SMALL_COLUMNS, rows=unpublished(_SMALL_ROWS), epochs=10),
    }

    grid: str = "noise-based"
    """noise-based or small."""
