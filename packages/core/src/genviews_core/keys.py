"""Validate relative paths of files inside a folder: image keys, and the paths listed in a manifest.

Untrusted files contain paths as well. A path that leaves its folder by the rules of POSIX or Windows is rejected before
anything is opened.
"""

import os
import re
import sys
from itertools import accumulate, islice
from pathlib import Path

# Empty, absolute, with a drive, a ".." component or a NUL; in the syntax common to Python's re and RE2 (pyarrow).
OUTSIDE_PATTERN = r"^$|^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\x00"
_OUTSIDE = re.compile(OUTSIDE_PATTERN)


def name_fault(key: str) -> str | None:
    """Return why a file name, as read by this process, is not valid UTF-8 and what to do; None if it is valid."""
    encoding = sys.getfilesystemencoding().lower()
    if encoding not in ("utf-8", "utf8") and not key.isascii():
        return f"this process reads file names as {encoding}, not as UTF-8: run it with PYTHONUTF8=1"
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        return "its name is not UTF-8: rename the file"
    return None


def leaves_folder(path: str) -> bool:
    """Return whether a path is empty, absolute or has "..", and so could refer to a file outside its folder."""
    return _OUTSIDE.search(path) is not None


def path_inside(folder: str | os.PathLike[str], path: str) -> Path:
    """Return the file at a relative path after checking that it is inside the folder, also when links are followed.

    The folder itself may be a link; a link below it must not point outside.

    Raises:
        ValueError: the file is outside the folder.
    """
    if leaves_folder(path):
        raise ValueError(f"expected a path inside {folder}, got {path!r}; a manifest lists paths without '..'")
    file = Path(folder, path)
    steps = accumulate(path.split("/"), os.path.join, initial=os.fspath(folder))
    if any(map(os.path.islink, islice(steps, 1, None))):  # two or three system calls, where realpath needs ten
        real, root = os.path.realpath(file), os.path.realpath(folder)
        if os.path.commonpath([real, root]) != root:
            raise ValueError(f"expected a file inside {folder}, got {path!r}, a link to {real}; copy the file there")
    return file
