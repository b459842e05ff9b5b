"""Pack images and their views into records that load many times faster than folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

import pairdata
from genviews.run_config import write_config
from genviews_core.progress import Progress, progress_bar


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Write a folder of FFCV's .beton files; started again, only files that are not whole are written."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "images": ("views_per_image", "quality", "value_range"),
        "execution": ("shard_images", "workers"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    out: Path
    """Folder for the records."""
    views: Path | None = None
    """Generative views: what `apps/generate` wrote."""
    interpolated: Path | None = None
    """Interpolated views with their partners: what `apps/generate --interpolate` wrote."""
    views_per_image: int | None = None
    """Generative views kept of each image; without it all of them."""
    size: int = 288
    """Side in pixels of the squares: a recipe's stored size."""
    mode: Literal["jpeg", "raw"] = "jpeg"
    """jpeg: small; raw: exact, and faster to read while it fits in memory."""
    quality: int = 90
    """Of JPEG."""
    shard_images: int | None = None
    """Images a file; without it 4096, or more where there would be more than 512 files."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; default: each image's range."""
    workers: int = 2
    """Processes that pack, each one file at a time."""
    verify: bool = False
    """Read everything back at the end: checksums, every square decoded."""


def run(options: PackOptions) -> pairdata.Packed:
    """Pack missing files; with --verify, check all and pack damaged ones again."""
    packed = write_records(options)
    write_config(options.out, "pack", options)
    if options.verify:
        damaged = read_back(options.out)
        for file, why in damaged.items():
            print(f"{options.out / file}: {why}; it is packed again", file=sys.stderr)
        if damaged:
            packed = write_records(options)
            if left := read_back(options.out):
                raise ValueError(f"{', '.join(left)} cannot be read back as written: is the disk sound?")
    return packed


def write_records(options: PackOptions) -> pairdata.Packed:
    """Pack with a progress bar."""
    with Progress(stderr=True) as progress:
        return pairdata.pack_records(
            options.images,
            options.out,
            views=options.views,
            interpolated=options.interpolated,
            views_per_image=options.views_per_image,
            size=options.size,
            mode=options.mode,
            quality=options.quality,
            shard_images=options.shard_images,
            value_range=options.value_range,
            workers=options.workers,
            on_progress=progress.add_task("packed"),
            on_message=progress.message,
        )


def read_back(out: Path) -> dict[str, str]:
    """Verify with a progress bar."""
    with progress_bar("verified") as update:
        return pairdata.verify_records(out, on_progress=update)
