"""Options of the inspection page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Write one HTML page about a folder of views; only the sampled pairs are read."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "page": ("scored", "extremes", "gamma", "seed", "tile"),
        "execution": ("size", "batch_size", "workers", "device"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of the source images."""
    views: Annotated[Path, tyro.conf.Positional]
    """Folder of their views, with manifest.parquet."""
    out: Path = Path("report.html")
    pca: Path | None = None
    """File written by `pairquality fit`; without it, pairs are shown but not scored."""
    encoder: str | None = None
    """Encoder of the PCA, if it is no longer where `pairquality fit` found it."""
    count: int = 500
    """Number of randomly sampled pairs to show."""
    scored: int | None = None
    """Number of pairs to score, including those shown; default: four times --count."""
    extremes: int = 24
    """Number of best and of worst scored pairs to show as well."""
    gamma: float = 1.0
    """Sharpness of the weights B softmax(gamma q); can be changed on the page."""
    seed: int = 0
    """Seed of the random sample."""
    tile: int = 192
    """Size in pixels of the images on the page."""
    size: int | None = None
    """Input size of the encoder in pixels; default: that of the PCA."""
    batch_size: int = 32
    """Pairs scored together."""
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
