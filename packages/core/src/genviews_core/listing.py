"""List the images of a folder: keys in byte order, without hidden names or link cycles.

A key is an image's POSIX path relative to the root of its data set; it identifies the image in all libraries.
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
    """Yield the keys of all images below a folder in byte order; keeps the names of one folder per level in memory.

    Names that begin with a dot are skipped. Links are followed, except to a parent folder; a broken link with the name
    of an image is listed, so that reading it reports what is missing. Files are not opened.

    Args:
        root: the folder.
        on_error: called with "a/b/" and the error if the folder a/b cannot be read; None to raise an error instead.
        follow_links: whether to include linked folders and files.

    Raises:
        ValueError: `root` is not a folder, or a folder in it cannot be read and `on_error` is None.
    """
    root = _folder(root)
    pending, above = [""], list[tuple[str, tuple[int, int]]]()  # remaining keys and folders, next one last
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
                raise _cannot_list(root / name, error) from error
            on_error(name, error)


def images_in(folder: str | os.PathLike[str], suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Return the images directly in a folder, in byte order of their names; hidden names are skipped.

    Args:
        folder: the folder.
        suffixes: suffixes of image names, in lower case.

    Raises:
        ValueError: `folder` is not a folder, or cannot be read.
    """
    return [path for path in visible(_folder(folder)) if path.suffix.lower() in suffixes and not path.is_dir()]


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder in byte order of their names; hidden names are skipped.

    Raises:
        ValueError: the folder cannot be read.
    """
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 (names alone)
    except OSError as error:
        raise _cannot_list(folder, error) from error
    return [folder / name for name in sorted(names, key=os.fsencode)]


def _cannot_list(folder: str | os.PathLike[str], error: OSError) -> ValueError:
    """Return the error to raise if a folder cannot be read."""
    return ValueError(f"cannot list the folder {os.fspath(folder)}: {error.strerror or error}")


def _folder(path: str | os.PathLike[str]) -> Path:
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 (raises the reason)
            return Path(path)
        reason = ""
    except OSError as error:
        reason = f" ({error.strerror})"
    raise ValueError(f"{os.fspath(path)} is not a folder{reason}; give the folder of the images")


def _entries(folder: Path, prefix: str, follow_links: bool) -> Iterator[str]:
    """Yield the images of a folder, and its subfolders with a trailing slash, so that they sort like their content."""
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
    except OSError:  # a link to itself or into an unreadable folder: reading it as an image reports that
        return False
