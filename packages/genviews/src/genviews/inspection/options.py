"""Options of the inspection page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Write one HTML page. Whatever the run's length, only the pairs drawn are read."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "page": ("scored", "extremes", "gamma", "seed", "tile"),
        "execution": ("size", "batch_size", "workers", "device"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """The images the views were made from."""
    views: Annotated[Path, tyro.conf.Positional]
    """Their views, with manifest.parquet."""
    out: Path = Path("report.html")
    pca: Path | None = None
    """What `pairquality fit` wrote; without it pairs are shown, not scored."""
    encoder: str | None = None
    """Where the PCA's encoder is now, if not under the name that `pairquality fit` was given."""
    count: int = 500
    """Pairs drawn at random and shown."""
    scored: int | None = None
    """Pairs scored, these and more; four times the count without."""
    extremes: int = 24
    """Best pairs of those scored that are shown too, and as many worst ones."""
    gamma: float = 1.0
    """Of the weights; the page can change it."""
    seed: int = 0
    """Of the draw."""
    tile: int = 192
    """Side in pixels of each picture in the page."""
    size: int | None = None
    """Side in pixels of the encoder's images; without, as the PCA says."""
    batch_size: int = 32
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
