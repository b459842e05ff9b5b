"""Gen-SIS's parts, https://arxiv.org/abs/2412.01672.

ViT-S/16, 100 epochs of ImageNet by DINO. Its own comparison of the parts is on DAVIS 2017, J&F: 61.45 for DINO, 61.66
with generative views, 62.07 with interpolated views and their disentanglement as well, which `apps/evaluate video`
measures.
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
"""All by Gen-DINO, which is DINO without views."""


@dataclass(frozen=True, kw_only=True)
class SelfAugmentations(PaperTable):
    """Gen-SIS's parts: generative views in the pair, and interpolated views to be disentangled."""

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
