"""Where a run's images are, and the loader that reads them, from folders or from records."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any

import tyro

import sslzoo
from genviews.recipes import Recipe
from pairdata import FFCVLoader, FolderLoader, TooFewImages, is_records


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images are, and their synthetic views if there are any."""

    images: Annotated[Path, tyro.conf.arg(name="data")]
    """A folder of images, or records of images and views: what `apps/pack` wrote."""
    views: Path | None = None
    """Generative views: what `apps/generate` wrote."""
    interpolated: Path | None = None
    """Interpolated views with their partners: what `apps/generate --interpolate` wrote."""
    real_only: bool = False
    """Of records, read the images alone."""
    workers: int = 0
    """Processes that decode images, or threads for records; 0 decodes in this one."""
    cache_gb: float = 1.0
    """Decoded images are kept in memory up to this size; records need none of it."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; default: range of each image."""

    def record(self, loader: FolderLoader | FFCVLoader) -> dict[str, Any]:
        """What a resumed run must find again, in folders or in records."""
        if isinstance(loader, FFCVLoader):
            layout = loader.index.layout
            views, interpolated = (count > 0 and not self.real_only for count in (layout.views, layout.mixed))
        else:
            views, interpolated = self.views is not None, self.interpolated is not None
        found = {"images": len(loader.index), "views": views, "interpolated": interpolated}
        return found | ({"value_range": list(self.value_range)} if self.value_range else {})


def check_values(recipe: Recipe, data: Data) -> None:
    """Check the numbers that options give, before anything is opened.

    Raises:
        ValueError: one is out of its range, or NaN.
    """
    for option, value, least, most in (
        ("--epochs", recipe.epochs, 0, inf),
        ("--batch-size", recipe.batch_size, 1, inf),
        ("--lr", recipe.base_lr, 0, inf),
        ("--weight-decay", recipe.weight_decay, 0, inf),
        ("--warmup-epochs", recipe.warmup_epochs, 0, inf),
        ("--view-probability", recipe.view_probability, 0, 1),
        ("--workers", data.workers, 0, inf),
        ("--cache-gb", data.cache_gb, 0, inf),
    ):
        if not (isfinite(value) and least <= value <= most):
            told = f"of {least} or more" if most == inf else f"from {least} to {most:g}"
            raise ValueError(f"expected {option} {told}, got {value}; leave it out for the default")
    if data.value_range is not None and not data.value_range[0] < data.value_range[1]:
        low, high = data.value_range
        raise ValueError(f"expected --value-range LOW HIGH with LOW below HIGH, got {low:g} {high:g}; give 0 4095")


def open_loader(recipe: Recipe, data: Data, worker: sslzoo.DistContext) -> FolderLoader:
    """The images and views of this process; both loaders yield the same batches in the same order.

    Raises:
        ValueError: the data cannot be used as they are given.
    """
    if recipe.batch_size % worker.world_size:
        raise ValueError(f"batch size {recipe.batch_size} does not divide over {worker.world_size} processes")
    opened = _open_records if is_records(data.images) or data.images.suffix == ".beton" else _open_folders
    return opened(recipe, data, worker)  # pyright: ignore[reportReturnType]  (either does all that is asked of it)


def open_fitting(
    recipe: Recipe, data: Data, worker: sslzoo.DistContext, *, parts: int, log: Callable[[str], None]
) -> tuple[Recipe, FolderLoader]:
    """Open the data, and reduce the batch size of the recipe if the images do not fill one batch.

    Args:
        recipe: training recipe.
        data: training data.
        worker: this process.
        parts: number of gradient accumulation steps.
        log: called with a message about the reduced batch size, on the main process.

    Raises:
        ValueError: the data is invalid, or there are too few images for one per accumulation step.
    """
    try:
        return recipe, open_loader(recipe, data, worker)
    except TooFewImages as error:
        unit = worker.world_size * parts
        if error.count < unit:
            raise ValueError(
                f"expected at least {unit} images for {worker.world_size} x {parts} (processes x --accumulate), got "
                f"{error.count} in {data.images}; use fewer processes or a lower --accumulate"
            ) from None
        smaller = replace(recipe, batch_size=error.count // unit * unit)
        if worker.is_main:
            log(
                f"{error.count} images do not fill a batch of {recipe.batch_size}: the batch is {smaller.batch_size}, "
                f"the learning rate {smaller.lr:.3g} (--lr-scaling {recipe.lr_scaling})"
            )
        return smaller, open_loader(smaller, data, worker)


def _open_folders(recipe: Recipe, data: Data, worker: sslzoo.DistContext) -> FolderLoader:
    if data.real_only:
        raise ValueError("--real-only is for records: leave out --views and --interpolated")
    return FolderLoader(
        data.images,
        size=recipe.stored_size,
        views=data.views,
        interpolated=data.interpolated,
        cache_bytes=int(data.cache_gb * 2**30),
        value_range=data.value_range,
        **_shared(recipe, data, worker),
    )


def _open_records(recipe: Recipe, data: Data, worker: sslzoo.DistContext) -> FFCVLoader:
    if data.views or data.interpolated:
        raise ValueError("records hold their views: give --views and --interpolated to apps/pack")
    if data.value_range:
        raise ValueError("records hold 8 bits: give --value-range to apps/pack")
    return FFCVLoader(
        data.images,
        size=recipe.stored_size,
        views_per_image=0 if data.real_only else 1,
        interpolated=recipe.method == "gen-dino" and not data.real_only,
        os_cache=_fits_memory(data.images),
        **_shared(recipe, data, worker),
    )


def _shared(recipe: Recipe, data: Data, worker: sslzoo.DistContext) -> dict[str, Any]:
    """What both loaders are told."""
    return {
        "batch_size": recipe.batch_size // worker.world_size,
        "seed": recipe.seed,
        "workers": data.workers,
        "device": str(worker.device),
        "rank": worker.rank,
        "world_size": worker.world_size,
    }


def _fits_memory(records: Path) -> bool:
    """Whether the system can keep all of the records, with a quarter of its memory to spare."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(file.stat().st_size for file in records.glob("*.beton")) < 0.75 * memory
