"""Relative paths that name files inside a folder: the keys of images, and the paths that a manifest lists.

Files from strangers name paths too. A path that climbs out of its folder, by the rules of POSIX or of Windows, is
refused before anything is opened.
"""

import os
import re
from itertools import accumulate, islice
from pathlib import Path

# Empty, absolute, a drive's, one part "..", or with a NUL; in the common syntax of Python's re and of RE2 (pyarrow).
OUTSIDE_PATTERN = r"^$|^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"
_OUTSIDE = re.compile(OUTSIDE_PATTERN)


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
