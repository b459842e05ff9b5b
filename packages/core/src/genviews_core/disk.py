"""Check before a long job that the disk holds what it will write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BLOCK = 4096
"""Bytes in which file systems usually allocate files."""


def require_space(
    folder: str | os.PathLike[str], size: int | float, what: str, *, remedy: str = "free some space"
) -> str:
    """Return a line that says how much disk something takes and how much is free.

    Args:
        folder: output folder; it need not exist yet.
        size: bytes that will be written.
        what: name of it, such as "300 views".
        remedy: remedy named in the error message.

    Raises:
        ValueError: less is free.
    """
    place = Path(folder).absolute()
    place = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise ValueError(
            f"expected {readable(size)} of free disk for {what} in {folder}, got {readable(free)}; {remedy}"
        )
    return f"{what}: about {readable(size)} of disk, {readable(free)} are free in {place}"


def readable(size: int | float) -> str:
    """Return a number of bytes with a unit, such as "12 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"


def on_disk(size: int | float) -> float:
    """Return the bytes that a file of this size occupies, on average over sizes near it."""
    return max(size + BLOCK / 2, float(BLOCK))
