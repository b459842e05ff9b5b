"""Options of embedding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Embed every image of a folder; a repeated call continues an interrupted one."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "map": ("map_points", "thumbnail", "seed"),
        "channels": ("channels", "value_range"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    backbone: str
    """Backbone folder, checkpoint file or timm/NAME."""
    out: Path = Path("features.parquet")
    """File with columns key and vector (.parquet), or an array (.npy) with STEM.keys.txt; OUT.parts is for resuming."""
    channels: int | None = None
    """Channels of the images; default: those of the backbone. The first layer of timm's networks is adapted."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits and other than three channels; default: those of
    the backbone, or of a sample."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the written numbers; float32 holds the same float16-rounded values."""
    map: Path | None = None
    """HTML page to write, with a 2-D map (t-SNE) of the embeddings."""
    map_points: int = 2000
    """Maximum number of images on the map, chosen at random."""
    thumbnail: int = 64
    """Side in pixels of the thumbnails on the map."""
    seed: int = 0
    """Seed of the map."""
    batch_size: int = 256
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
