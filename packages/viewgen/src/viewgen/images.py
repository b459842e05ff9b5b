"""List the images under a folder and locate their files by key; reading and listing are from genviews_core."""

import os
from pathlib import Path, PurePosixPath

from genviews_core.images import SUFFIXES, UnreadableImage, read_image
from genviews_core.keys import leaves_folder, name_fault
from genviews_core.listing import iter_images

__all__ = ["UnreadableImage", "iter_images", "key_path", "list_images", "read_image"]


def list_images(root: str | os.PathLike[str]) -> list[str]:
    """Return the sorted keys (POSIX paths relative to ``root``) of all images under it, as ``iter_images`` finds them.

    Raises:
        ValueError: if ``root`` is not a folder or has no image, or if a folder in it cannot be read.
    """
    keys = list(iter_images(root))
    if not keys:
        raise ValueError(f"no image ({', '.join(sorted(SUFFIXES))}) was found under {root}")
    return keys


def key_path(root: Path, key: str) -> Path:
    """The file of ``key`` under ``root``.

    Raises:
        UnreadableImage: if the key is empty, absolute or climbs with ``..``, and so could leave ``root``; or if it is
            not UTF-8, and so fits no manifest.
    """
    if leaves_folder(key) or not PurePosixPath(key).parts:
        raise UnreadableImage(f"the key {key!r} is refused: a key is a path inside its folder, without '..'")
    if fault := name_fault(key):
        raise UnreadableImage(f"the key {key!r} is refused; {fault}")
    return root / key
