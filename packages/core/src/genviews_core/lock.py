"""Locks that allow one writer of a folder or file at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from genviews_core.files import writing

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of file systems without locks, such as some network file systems."""

_held: set[tuple[int, int] | None] = set()
"""Lock files held by this process, by device and inode: the system's locks only exclude other processes."""


class LockedError(ValueError):
    """Raised if another process holds the lock; the message names it."""


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold an exclusive lock on a folder, which is created if missing.

    The lock is a file `.lock` in the folder, held by the system until this process ends: a kill releases it, even if
    child processes live on.

    Raises:
        LockedError: another process, or another thread of this one, holds the lock.
        WriteError: the folder cannot be created or written.
    """
    with _lock(Path(folder) / ".lock", Path(folder)):
        yield


@contextlib.contextmanager
def lock_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold an exclusive lock on a file, through a file `.<name>.lock` next to it.

    Raises:
        LockedError: another process, or another thread of this one, holds the lock.
        WriteError: the file's folder cannot be created or written.
    """
    path = Path(path)
    with _lock(path.with_name(f".{path.name}.lock"), path):
        yield


@contextlib.contextmanager
def _lock(lock: Path, what: Path) -> Iterator[None]:
    with writing(what):
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, what)
    identity = _identity(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may have been deleted
            lock.unlink()
        _held.discard(identity)
        os.close(descriptor)


def _acquire(lock: Path, what: Path) -> int:
    """Lock the file, write this process's id into it and return its descriptor."""
    if _identity(lock) in _held:  # opening and closing it again would release the lock
        raise LockedError(_locked_message(what, "this process"))
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock_descriptor(descriptor, what)
            if (identity := _identity(descriptor)) == _identity(lock):  # not removed by its previous holder in between
                now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
                about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(about).encode() + b"\n", 0)
                _held.add(identity)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _identity(file: int | Path) -> tuple[int, int] | None:
    """Return device and inode of an open file or a path, or None if there is no such file."""
    try:
        status = os.stat(file)  # noqa: PTH116 (a descriptor or a path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _lock_descriptor(descriptor: int, what: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would outlive us in forked workers
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise LockedError(_locked_message(what, _holder(descriptor))) from None
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(f"the file system of {what} has no locks: do not write there from two processes", stacklevel=2)


def _locked_message(what: Path, holder: str) -> str:
    return f"{what} is being written by {holder}; wait for it, end it or choose another place"


def _holder(descriptor: int) -> str:
    """Return a description of the lock's holder, read from the lock file."""
    try:
        about = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
