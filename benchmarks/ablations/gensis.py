"""Components of Gen-SIS, https://arxiv.org/abs/2412.01672.

DINO with ViT-S/16, 100 epochs of ImageNet. The paper compares the components on DAVIS 2017 (J&F, measured by
`apps/evaluate video`): 61.45 for DINO, 61.66 with generative views, 62.07 with interpolated views and disentanglement
as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.ablations.grids import KNN, LINEAR, Column, Grid, Row, unpublished
from benchmarks.ablations.run_grid import PaperTable
from ssl_eval import ProtocolOverride

GENERATIVE, INTERPOLATED = {"views": "--views"}, {"interpolated": "--interpolated"}
ROWS = (
    Row("DINO", (69.4, 74.0)),
    Row("generative views", files=GENERATIVE),
    Row("interpolated views", files=INTERPOLATED),
    Row("both: Gen-DINO", (70.9, 74.5), files=GENERATIVE | INTERPOLATED),
)
"""All rows are trained by Gen-DINO, which equals DINO without views."""


@dataclass(frozen=True, kw_only=True)
class SelfAugmentations(PaperTable):
    """Components of Gen-SIS: generative views, and interpolated views with the disentanglement loss."""

    HEADING: ClassVar[str] = "views"
    GRIDS: ClassVar[Mapping[str, Grid]] = {
        "imagenet": Grid(
            recipe="imagenet-gen-dino", columns=(KNN, Column("linear", ProtocolOverride(name="dino-linear"))), rows=ROWS
        ),
        "small": Grid(recipe="small-gen-dino", columns=(KNN, *LINEAR), rows=unpublished(ROWS), epochs=10),
    }

    views: Path | None = None
    """Generative views of the training images."""
    interpolated: Path | None = None
    """Interpolated views with their partners."""
    grid: str = "imagenet"
    """imagenet or small."""

    def inputs(self) -> Mapping[str, Path | None]:
        """See PaperTable."""
        return {"--views": self.views, "--interpolated": self.interpolated}
