"""Relative paths that name files inside a folder: the keys of images, and the paths that a manifest lists.

Files from strangers name paths too. A path that climbs out of its folder, by the rules of POSIX or of Windows, is
refused before anything is opened.
"""

import os
import re
import sys
from itertools import accumulate, islice
from pathlib import Path

# Empty, absolute, a drive's, one part "..", or with a NUL; in the common syntax of Python's re and of RE2 (pyarrow).
OUTSIDE_PATTERN = r"^$|^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"
_OUTSIDE = re.compile(OUTSIDE_PATTERN)


def name_fault(key: str) -> str | None:
    """What to do where a file's name, as this process reads it, fits no UTF-8 text; None where it does."""
    encoding = sys.getfilesystemencoding().lower()
    if encoding not in ("utf-8", "utf8") and not key.isascii():
        return f"this process reads file names as {encoding}, not as UTF-8: run it with PYTHONUTF8=1"
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        return "its name is not UTF-8: rename the file"
    return None


def leaves_folder(path: str) -> bool:
    """Whether a relative path is empty, absolute or climbs, and so could name a file outside its folder."""
    return _OUTSIDE.search(path) is not None


def path_inside(folder: str | os.PathLike[str], path: str) -> Path:
    """Return the file that a relative path names, which lies inside the folder even where links are followed.

    The folder itself may be a link; a link below it must not lead out of it.

    Raises:
        ValueError: if the file lies outside.
    """
    if leaves_folder(path):
        raise ValueError(f"expected a path inside {folder}, got {path!r}; a manifest lists paths without '..'")
    file = Path(folder, path)
    steps = accumulate(path.split("/"), os.path.join, initial=os.fspath(folder))
    if any(map(os.path.islink, islice(steps, 1, None))):  # two or three calls, where a real path takes ten
        real, root = os.path.realpath(file), os.path.realpath(folder)
        if os.path.commonpath([real, root]) != root:
            raise ValueError(f"expected a file inside {folder}, got {path!r}, a link to {real}; copy the file there")
    return file
