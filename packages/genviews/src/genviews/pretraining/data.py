"""Loaders of images and views, from folders or from records."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import sslzoo
from genviews.pretraining.options import DataConfig
from genviews.recipes import Recipe
from genviews_core.channels import RGB
from pairdata import FFCVLoader, FolderLoader, TooFewImages, is_records


def data_fingerprint(data: DataConfig, loader: FolderLoader | FFCVLoader) -> dict[str, Any]:
    """Return the settings that a resumed run must share with the interrupted one, equal for folders and records."""
    if isinstance(loader, FFCVLoader):
        layout = loader.index.layout
        views, interpolated = (count > 0 and not data.real_only for count in (layout.views, layout.mixed))
    else:
        views, interpolated = data.views is not None, data.interpolated is not None
    settings = {"images": len(loader.index), "views": views, "interpolated": interpolated}
    settings |= {"channels": data.channels} if data.channels != RGB else {}
    return settings | ({"value_range": list(data.value_range)} if data.value_range else {})


def open_loader(recipe: Recipe, data: DataConfig, context: sslzoo.DistContext) -> FolderLoader | FFCVLoader:
    """Open the images and views of this process; both loaders yield the same batches in the same order.

    Raises:
        ValueError: the data cannot be read, or does not fit the options.
    """
    if recipe.batch_size % context.world_size:
        raise ValueError(
            f"expected a batch size divisible by the {context.world_size} processes, got {recipe.batch_size}; "
            "change --batch-size"
        )
    opened = _open_records if is_records(data.images) or data.images.suffix == ".beton" else _open_folders
    return opened(recipe, data, context)


def open_fitting(
    recipe: Recipe,
    data: DataConfig,
    context: sslzoo.DistContext,
    *,
    accumulation_steps: int,
    log: Callable[[str], None],
) -> tuple[Recipe, FolderLoader | FFCVLoader]:
    """Open the data, and reduce the batch size of the recipe if the images do not fill one batch.

    Args:
        recipe: training recipe.
        data: training data.
        context: this process.
        accumulation_steps: number of gradient accumulation steps.
        log: called with a message about the reduced batch size, on the main process.

    Raises:
        ValueError: the data is invalid, or there are too few images for one per accumulation step.
    """
    try:
        return recipe, open_loader(recipe, data, context)
    except TooFewImages as error:
        unit = context.world_size * accumulation_steps
        if error.count < unit:
            raise ValueError(
                f"expected at least {unit} images for {context.world_size} x {accumulation_steps} (processes x "
                f"--accumulation-steps), got {error.count} in {data.images}; use fewer processes or accumulation steps"
            ) from None
        smaller = replace(recipe, batch_size=error.count // unit * unit)
        if context.is_main:
            log(
                f"{error.count} images do not fill a batch of {recipe.batch_size}: the batch is {smaller.batch_size}, "
                f"the learning rate {smaller.lr:.3g} (--lr-scaling {recipe.lr_scaling})"
            )
        return smaller, open_loader(smaller, data, context)


def _open_folders(recipe: Recipe, data: DataConfig, context: sslzoo.DistContext) -> FolderLoader:
    if data.real_only:
        raise ValueError(
            "expected records with --real-only, got a folder; leave out --views and --interpolated instead"
        )
    return FolderLoader(
        data.images,
        size=recipe.decode_size,
        views=data.views,
        interpolated=data.interpolated,
        cache_bytes=int(data.cache_gb * 2**30),
        value_range=data.value_range,
        channels=data.channels,
        **_shared(recipe, data, context),
    )


def _open_records(recipe: Recipe, data: DataConfig, context: sslzoo.DistContext) -> FFCVLoader:
    if data.views or data.interpolated:
        raise ValueError(
            "expected no --views or --interpolated with records, which contain views; give them to genviews pack"
        )
    if data.value_range:
        raise ValueError("expected no --value-range with records, which have 8 bits; give it to genviews pack")
    return FFCVLoader(
        data.images,
        size=recipe.decode_size,
        views_per_image=0 if data.real_only else 1,
        interpolated=recipe.method == "gen-dino" and not data.real_only,
        os_cache=_fits_memory(data.images),
        **_shared(recipe, data, context),
    )


def _shared(recipe: Recipe, data: DataConfig, context: sslzoo.DistContext) -> dict[str, Any]:
    """Return the options that both loaders share."""
    return {
        "batch_size": recipe.batch_size // context.world_size,
        "seed": recipe.seed,
        "workers": data.workers,
        "device": str(context.device),
        "rank": context.rank,
        "world_size": context.world_size,
    }


def _fits_memory(records: Path) -> bool:
    """Return whether the records fit into three quarters of the memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(file.stat().st_size for file in records.glob("*.beton")) < 0.75 * memory
