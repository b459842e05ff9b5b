"""The one listing of a folder of images: keys in the order of their bytes, without hidden names or endless loops.

A key is an image's POSIX path relative to its data set's root; it names the image everywhere.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from genviews_core.images import SUFFIXES


def iter_images(
    root: str | os.PathLike[str],
    on_error: Callable[[str, OSError], object] | None = None,
    *,
    follow_links: bool = True,
) -> Iterator[str]:
    """Yield the keys of all images below a folder, sorted by their bytes; holds the names of one folder per level.

    Names that begin with a dot are left out. Links are followed, but not back to a folder above; a link that leads
    nowhere is listed where its name is an image's, so that reading it says what is missing. Files are not opened.

    Args:
        root: the folder.
        on_error: called with "a/b/" and the reason where the folder a/b cannot be read; without it, that is an error.
        follow_links: whether linked folders and files count.

    Raises:
        ValueError: `root` is not a folder, or a folder in it cannot be read and there is no `on_error`.
    """
    root = _folder(root)
    pending, above = [""], list[tuple[str, tuple[int, int]]]()  # keys and folders yet to come, the next one last
    while pending:
        name = pending.pop()
        if name and not name.endswith("/"):
            yield name
            continue
        while above and not name.startswith(above[-1][0]):
            above.pop()
        try:
            status = (root / name).stat()
            identity = (status.st_dev, status.st_ino)
            if identity not in (folder for _, folder in above):
                pending += sorted(_entries(root / name, name, follow_links), key=os.fsencode, reverse=True)
                above.append((name, identity))
        except OSError as error:
            if on_error is None:
                raise cannot_list(root / name, error) from error
            on_error(name, error)


def images_in(folder: str | os.PathLike[str], suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the images directly in a folder, sorted by the bytes of their names; hidden names are left out.

    Args:
        folder: the folder.
        suffixes: of image names, in lower case.

    Raises:
        ValueError: it is not a folder, or cannot be read.
    """
    return [path for path in visible(_folder(folder)) if path.suffix.lower() in suffixes and not path.is_dir()]


def is_image_key(key: str) -> bool:
    """Return whether a key names an image by its suffix, and no part of it is hidden: for what lies in an archive."""
    parts = key.split("/")
    return not any(part.startswith(".") for part in parts) and os.path.splitext(key)[1].lower() in SUFFIXES  # noqa: PTH122


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted by the bytes of the names; hidden names are left out.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 (names alone)
    except OSError as error:
        raise cannot_list(folder, error) from error
    return [folder / name for name in sorted(names, key=os.fsencode)]


def cannot_list(folder: str | os.PathLike[str], error: OSError) -> ValueError:
    """Return the error to raise where a folder cannot be read."""
    return ValueError(f"cannot list the folder {os.fspath(folder)}: {error.strerror or error}")


def _folder(path: str | os.PathLike[str]) -> Path:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 (with the reason where there is one)
            return Path(path)
        reason = ""
    except OSError as error:
        reason = f" ({error.strerror})"
    raise ValueError(f"{os.fspath(path)} is not a folder{reason}: give the folder that holds the images")


def _entries(folder: Path, prefix: str, follow_links: bool) -> Iterator[str]:
    """The images of a folder, and its folders with a slash at the end: so they sort as what they hold does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or (not follow_links and entry.is_symlink()):
                continue
            if _is_folder(entry):
                yield f"{prefix}{entry.name}/"
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a million names)
                yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a closed folder: reading it as an image will say so
        return False
