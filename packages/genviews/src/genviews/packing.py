"""Pack images and their views into records that load many times faster than folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

import pairdata
from genviews.processes import require_main_process
from genviews.run_config import write_config
from genviews_core.progress import Progress, progress_bar


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Write a folder of FFCV .beton files; a repeated call writes only files that are incomplete."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "images": ("views_per_image", "quality", "value_range"),
        "execution": ("shard_images", "workers"),
    }

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    out: Path
    """Folder for the records."""
    views: Path | None = None
    """Generative views written by `genviews generate`."""
    interpolated: Path | None = None
    """Interpolated views with their partners, written by `genviews generate --interpolate`."""
    views_per_image: int | None = None
    """Number of generative views to pack per image; default: all."""
    size: int = 288
    """Height and width in pixels of the packed squares: the --decode-size of the recipe."""
    mode: Literal["jpeg", "raw"] = "jpeg"
    """jpeg is smaller; raw is lossless, and faster to read if it fits into memory."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    shard_images: int | None = None
    """Images per file; default: 4096, or more if that would give more than 512 files."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; default: each image's range."""
    workers: int = 2
    """Processes; each packs one file at a time."""
    verify: bool = False
    """Read all files back at the end: compare checksums and decode every square."""


def run(options: PackOptions) -> pairdata.Packed:
    """Pack missing files; with --verify, check all files and pack damaged ones again.

    Raises:
        ValueError: the images, views or options cannot be used, a file cannot be read back, or this is not the first
            process of torchrun.
    """
    require_main_process("pack")
    packed = write_records(options)
    write_config(options.out, "pack", options)
    if options.verify:
        damaged = read_back(options.out)
        for file, reason in damaged.items():
            print(f"{options.out / file}: {reason}; packing it again", file=sys.stderr)
        if damaged:
            packed = write_records(options)
            if left := read_back(options.out):
                raise ValueError(f"expected to read back what was written, but not {', '.join(left)}; check the disk")
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
