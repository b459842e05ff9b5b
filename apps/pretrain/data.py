"""Where a run's images are, and the loader that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import sslzoo
from pairdata import FolderLoader
from recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images are, and their synthetic views if there are any."""

    images: Annotated[Path, tyro.conf.arg(name="data")]
    views: Path | None = None
    """Generative views: what `apps/generate` wrote."""
    interpolated: Path | None = None
    """Interpolated views with their partners: what `apps/generate --interpolate` wrote."""
    workers: int = 0
    """Processes that decode images; 0 decodes in this one."""
    cache_gb: float = 1.0
    """Decoded images are kept in memory up to this size."""

    def record(self, loader: FolderLoader) -> dict[str, Any]:
        """What a resumed run must find again."""
        synthetic = {"views": self.views is not None, "interpolated": self.interpolated is not None}
        return {"images": len(loader.index), **synthetic}


def open_loader(recipe: Recipe, data: Data, worker: sslzoo.Worker) -> FolderLoader:
    """The images and views of this process."""
    if recipe.batch_size % worker.world_size:
        raise ValueError(f"batch size {recipe.batch_size} does not divide over {worker.world_size} processes")
    return FolderLoader(
        data.images,
        batch_size=recipe.batch_size // worker.world_size,
        size=recipe.stored_size,
        views=data.views,
        interpolated=data.interpolated,
        seed=recipe.seed,
        workers=data.workers,
        device=str(worker.device),
        rank=worker.rank,
        world_size=worker.world_size,
        cache_bytes=int(data.cache_gb * 2**30),
    )
