"""Write files atomically, and turn the system's write errors into one-line messages with a remedy."""

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
    errno.ENOENT: "the folder cannot be created; choose another one",
    errno.ENOTDIR: "a file exists where a folder is needed; move it or choose another folder",
    errno.EEXIST: "a file exists where a folder is needed; move it or choose another folder",
    errno.EISDIR: "a folder exists where a file is needed; move it or choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n 4096`",
}


class WriteError(ValueError):
    """Raised if a file or folder cannot be written; the message gives its path, the reason and a remedy."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn OS errors raised while writing at or below `path` into WriteError.

    Raises:
        WriteError: instead of an OSError, including one that torch or safetensors wrapped in an error of its own.
    """
    try:
        yield
    except Exception as error:
        cause = hidden_os_error(error)
        if cause is None:
            raise
        raise WriteError(write_error_message(path, cause)) from error


def write_error_message(path: str | os.PathLike[str], error: OSError) -> str:
    """Return the message for an OSError raised while writing at `path`."""
    place = _escaped(os.fspath(path))
    if error.errno in FULL:
        return f"cannot write {place}: the disk is full; free some space and run again, files already written are kept"
    unknown = f"{error.strerror or error}; choose another folder"
    return f"cannot write {place}: {REASONS.get(error.errno or 0, unknown)}"


def hidden_os_error(error: BaseException) -> OSError | None:
    """Return the OSError that an exception is or wraps, or None.

    torch.save raises RuntimeError("unexpected pos ...") while it handles the OSError of the file it writes to;
    safetensors puts the error number into its message: "I/O error: No space left on device (os error 28)".
    """
    if isinstance(error, OSError):
        return error
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return error.__context__
    number = re.search(r"I/O error: .*\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents if they do not exist.

    Raises:
        WriteError: it cannot be created.
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
    """Write a file so that a concurrent reader, a kill or a full disk never leaves or sees a partial one.

    The content is written to a temporary file, which is removed on failure and otherwise replaces `path`.

    Args:
        path: the file; its folder is created if missing.
        content: bytes, text (UTF-8), or a function that writes to the path it is given.
        sync: wait until the file is on disk, so that a power failure leaves the old or the new one as well.
        temporary: the temporary file, on the same file system; `<path>.tmp` by default.

    Raises:
        WriteError: the file cannot be written; an existing file is left unchanged.
    """
    path = Path(path)
    temporary = temporary or path.with_name(path.name + ".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if callable(content):
                _write_with_usual_permissions(temporary, content)
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


def _write_with_usual_permissions(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(path)`; safetensors creates files that only their owner can read, whatever the umask."""
    path.unlink(missing_ok=True)
    path.touch()
    usual = path.stat().st_mode
    write(path)
    if path.stat().st_mode != usual:
        path.chmod(usual)


def write_json(path: str | os.PathLike[str], value: Any, *, sync: bool = True) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    atomic_write(path, json.dumps(value, indent=2) + "\n", sync=sync)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before a long computation; an existing file is kept and no new one is left.

    Raises:
        WriteError: the file cannot be written.
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
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _escaped(text: str) -> str:
    """Return the text with non-printable characters escaped, so that it fits on one line."""
    return text if text.isprintable() else ascii(text)[1:-1]
