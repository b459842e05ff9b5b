"""Files that are whole or not there, and one line where the system refuses to write."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
REASONS = {
    errno.EACCES: "permission denied; change the permissions or choose another folder",
    errno.EPERM: "permission denied; change the permissions or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder cannot be made there; choose another one",
    errno.ENOTDIR: "a file stands where a folder is needed; move it or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed; move it or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed; move it or choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n 4096`",
}


class WriteError(ValueError):
    """A file or folder that cannot be written; the message names it, the reason and the remedy."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the system's refusal to write at or below `path` into one line.

    Raises:
        WriteError: in place of an OSError, also of one that torch or safetensors hid in an error of their own.
    """
    try:
        yield
    except Exception as error:
        cause = hidden_os_error(error)
        if cause is None:
            raise
        raise WriteError(write_error_message(path, cause)) from error


def write_error_message(path: str | os.PathLike[str], error: OSError) -> str:
    """What the user is told of an OSError met while writing at `path`."""
    place = _escaped(os.fspath(path))
    if error.errno in FULL:
        return f"cannot write {place}: the disk is full; free some space and run again, what is written stays"
    unknown = f"{error.strerror or error}; choose another folder"
    return f"cannot write {place}: {REASONS.get(error.errno or 0, unknown)}"


def hidden_os_error(error: BaseException) -> OSError | None:
    """The OSError that an exception is, or that a library hid in it.

    torch.save raises RuntimeError("unexpected pos ...") while it handles the OSError of the file it writes to;
    safetensors puts the number into its text: "I/O error: No space left on device (os error 28)".
    """
    if isinstance(error, OSError):
        return error
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return error.__context__
    number = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it where they are missing.

    Raises:
        WriteError: it cannot be made.
    """
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def atomic_write(
    path: str | os.PathLike[str],
    content: bytes | str | Callable[[Path], object],
    *,
    sync: bool = True,
    temporary: Path | None = None,
) -> None:
    """Write a file so that a reader, a kill or a full disk never meets half of it.

    The content goes to another file first, which is removed if anything fails, and then takes the place of `path`.

    Args:
        path: the file; its folder is made where missing.
        content: bytes, text (UTF-8), or a function that writes the file whose path it is given.
        sync: wait until it is on the disk, so that a power failure leaves the old file or the new one, too.
        temporary: the other file, on the same disk; `<path>.tmp` without.

    Raises:
        WriteError: the file cannot be written; what stood there before is untouched.
    """
    path = Path(path)
    temporary = temporary or path.with_name(path.name + ".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
            if sync:
                _sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if sync:
            _sync(path.parent)


def write_json(path: str | os.PathLike[str], value: Any, *, sync: bool = True) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    atomic_write(path, json.dumps(value, indent=2) + "\n", sync=sync)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before hours of work whether a file can be written; what is there stays, nothing else is left.

    Raises:
        WriteError: it cannot.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()


def _sync(path: Path) -> None:
    """Force a file, or a folder's names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _escaped(text: str) -> str:
    """In one line, whatever a file's name holds."""
    return text if text.isprintable() else ascii(text)[1:-1]
