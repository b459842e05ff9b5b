"""GenView's ablations, https://arxiv.org/abs/2403.12003, section 4.2: three components of its table 8.

MoCo v3 with ResNet-18, 100 epochs of ImageNet-100; the linear evaluation of its main table, for 50 epochs. There,
50,000 of the images have views; an image without a view gives a pair of two real crops. Without any views the paper
reports 65.52 in the ablation of components and 62.39 in that of probabilities, without an explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from benchmarks.ablations.grids import KNN, LINEAR, Column, Grid, Row, unpublished
from benchmarks.ablations.run_grid import PaperTable
from ssl_eval import ProtocolOverride

_LINEAR = ProtocolOverride(name="genview-linear", epochs=50)
TOP1, TOP5 = Column("top-1", _LINEAR), Column("top-5", _LINEAR, "top5")


def grids(*rows: Row, columns: tuple[Column, ...] = (TOP1, TOP5), small: tuple[Row, ...] = ()) -> dict[str, Grid]:
    """Return the grids at the paper's size and at a laptop's."""
    return {
        "imagenet100": Grid(recipe="imagenet100-moco-v3", columns=columns, rows=rows),
        "small": Grid(recipe="small-moco-v3", columns=(KNN, *LINEAR), rows=small or unpublished(rows), epochs=10),
    }


PROBABILITIES = {
    0.0: (62.39, 84.57),
    0.1: (65.86, 87.10),
    0.3: (68.38, 89.02),
    0.5: (69.04, 89.29),
    0.8: (69.47, 89.49),
    1.0: (70.55, 90.34),
}


@dataclass(frozen=True, kw_only=True)
class ViewProbability(PaperTable):
    """GenView's alpha: the probability that a pair has a synthetic view."""

    HEADING: ClassVar[str] = "probability"
    GRIDS: ClassVar[Mapping[str, Grid]] = grids(
        *(Row(f"{alpha:g}", told, {"view-probability": alpha}, {"views": "--views"})
          for alpha, told in PROBABILITIES.items())
    )  # fmt: skip

    views: Path
    """Synthetic views of the training images."""
    grid: str = "imagenet100"
    """imagenet100 or small."""

    def inputs(self) -> Mapping[str, Path | None]:
        """See PaperTable."""
        return {"--views": self.views}


EXACT = ({"pair-weighting": "exact"}, {"pca": "--pca"})
CONSTANT, ADAPTIVE = {"views": "--views"}, {"views": "--adaptive"}
COMPONENTS = (
    Row("baseline", (65.52,)),
    Row("quality loss", (66.97,), *EXACT),
    Row("framework", (71.50,), files=CONSTANT),
    Row("framework, adaptive", (73.96,), files=ADAPTIVE),
    Row("framework, quality loss", (74.88,), EXACT[0], EXACT[1] | CONSTANT),
    Row("framework, adaptive, quality loss", (75.40,), EXACT[0], EXACT[1] | ADAPTIVE),
)


def by_itself(row: Row) -> Row:
    """Return the row with pairs weighted by the network in training, because no pretrained encoder is for 32 px."""
    weighted = row.options.get("pair-weighting") is not None
    files = {option: name for option, name in row.files.items() if option != "pca"}
    return replace(row, published=(), options={"pair-weighting": "self"} if weighted else {}, files=files)


@dataclass(frozen=True, kw_only=True)
class Components(PaperTable):
    """GenView's components: views, views with adaptive noise, pairs weighted by quality.

    The published result without adaptive views is that of a constant noise level of 200. The small grid weights pairs
    by the features of the network in training.
    """

    HEADING: ClassVar[str] = "parts"
    GRIDS: ClassVar[Mapping[str, Grid]] = grids(
        *COMPONENTS, columns=(TOP1,), small=tuple(by_itself(row) for row in COMPONENTS)
    )

    views: Path
    """Synthetic views of the training images with constant strength."""
    adaptive: Path | None = None
    """Synthetic views with adaptive strength."""
    pca: Path | None = None
    """File written by `pairquality fit`."""
    grid: str = "imagenet100"
    """imagenet100 or small."""

    def inputs(self) -> Mapping[str, Path | None]:
        """See PaperTable."""
        return {"--views": self.views, "--adaptive": self.adaptive, "--pca": self.pca}


STRENGTHS = {
    "constant-0": (71.80, 92.19),
    "constant-100": (72.14, 92.34),
    "constant-200": (71.50, 91.88),
    "constant-300": (71.76, 92.02),
    "constant-400": (72.08, 92.36),
    "random": (72.96, 92.78),
    "adaptive": (73.96, 93.22),
}


def by_strength(name: str, published: tuple[float, ...] = ()) -> Row:
    """Return a row with the name of its views."""
    return Row(name, published, files={"views": f"--views {name}=FOLDER"})


@dataclass(frozen=True, kw_only=True)
class NoiseStrategy(PaperTable):
    """Noise level of the views: constant, random, or adapted to the foreground of each image.

    Other generators than Stable unCLIP have other kinds of strength, so the small grid has a row per folder of views.
    """

    HEADING: ClassVar[str] = "noise"
    GRIDS: ClassVar[Mapping[str, Grid]] = grids(*(by_strength(name, told) for name, told in STRENGTHS.items()))

    views: tuple[str, ...]
    """ROW=FOLDER, such as constant-200=views/200 random=views/random adaptive=views/adaptive."""
    grid: str = "imagenet100"
    """imagenet100 or small."""

    def chosen(self) -> Grid:
        """See PaperTable."""
        grid = super().chosen()
        if self.grid == "small":
            return replace(grid, rows=tuple(by_strength(name) for name in self._folders()))
        return grid

    def inputs(self) -> Mapping[str, Path | None]:
        """See PaperTable."""
        return {f"--views {name}=FOLDER": folder for name, folder in self._folders().items()}

    def _folders(self) -> dict[str, Path]:
        pairs = [pair.partition("=") for pair in self.views]
        if any(not folder for _, _, folder in pairs):
            raise ValueError(f"expected --views ROW=FOLDER, got {' '.join(self.views)}; give constant-200=views/200")
        return {name: Path(folder) for name, _, folder in pairs}
