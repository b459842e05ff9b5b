"""One writer of a folder or a file at a time."""

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
"""Of file systems that have no locks, as some shared ones."""

_held: set[tuple[int, int]] = set()
"""The lock files of this process, by device and inode: the system keeps only processes apart."""


class LockedError(ValueError):
    """Another process writes here; the message says which one."""


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only writer of a folder, which is made where missing.

    The lock is a file `.lock` in the folder, held by the system for as long as this process lives: a kill frees it,
    whatever its children do.

    Raises:
        LockedError: another process, or another thread of this one, holds it.
        WriteError: the folder cannot be made or written.
    """
    with _lock(Path(folder) / ".lock", Path(folder)):
        yield


@contextlib.contextmanager
def lock_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only writer of a file, by a file `.<name>.lock` beside it.

    Raises:
        LockedError: another process, or another thread of this one, holds it.
        WriteError: the file's folder cannot be made or written.
    """
    path = Path(path)
    with _lock(path.with_name(f".{path.name}.lock"), path):
        yield


@contextlib.contextmanager
def _lock(lock: Path, what: Path) -> Iterator[None]:
    with writing(what):
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, what)
    about = os.fstat(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            lock.unlink()
        _held.discard((about.st_dev, about.st_ino))
        os.close(descriptor)


def _acquire(lock: Path, what: Path) -> int:
    """The locked file's descriptor; the file says who we are."""
    if _is_held_here(lock):  # opening and closing it again would free it
        raise LockedError(_refusal(what, "this very process"))
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, what)
            if _is_still_there(descriptor, lock):  # and was not removed by its last holder in between
                now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
                about = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(about).encode() + b"\n", 0)
                _held.add((os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, what: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which lives on in forked workers
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise LockedError(_refusal(what, _holder(descriptor))) from None
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(f"the file system of {what} has no locks: let no two processes write there", stacklevel=2)


def _refusal(what: Path, holder: str) -> str:
    return f"{what} is being written by {holder}; wait for it, end it or choose another place"


def _is_held_here(lock: Path) -> bool:
    try:
        about = lock.stat()
    except FileNotFoundError:
        return False
    return (about.st_dev, about.st_ino) in _held


def _is_still_there(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Who holds it, as the lock's file says."""
    try:
        about = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
