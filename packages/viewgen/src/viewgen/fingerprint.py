"""Hashes of files, keys and configurations, to detect that a folder belongs to another run."""

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from genviews_core.files import write_json, writing

BLOCK = 1 << 24


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the hash of a file's bytes."""
    with Path(path).open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()


def files_hash(named: Iterable[tuple[str, Path]]) -> str:
    """Return the hash of the names and bytes of files, in order."""
    digest = blake2b(digest_size=16)
    for name, path in named:
        digest.update(f"{name}\n".encode())
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def keys_hash(keys: Iterable[str]) -> str:
    """Return the hash of image keys, in order."""
    digest = blake2b(digest_size=16)
    for key in keys:
        digest.update(json.dumps(key).encode())
    return digest.hexdigest()


def ensure_same_config(path: Path, values: dict[str, Any], *, holds: str) -> None:
    """Write a configuration to a JSON file, or check that an existing file has the same; workers may call this at once.

    Args:
        path: the file; its folder is created if missing.
        values: configuration that must not change between calls.
        holds: content of a folder with another configuration, for the message: "views of other settings".

    Raises:
        ValueError: values differ (the message names them), or the file is damaged or cannot be written.
    """
    values = json.loads(json.dumps(values))
    if not path.exists():
        own = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        with writing(path):
            write_json(own, values)
            with contextlib.suppress(FileExistsError):
                os.link(own, path)
            own.unlink()
    try:
        found = json.loads(path.read_text())
        assert isinstance(found, dict)
    except (ValueError, AssertionError):
        raise ValueError(f"{path} is damaged; choose another folder, or delete this one") from None
    differing = [name for name in values if found.get(name) != values[name]]
    if differing:
        changes = "; ".join(f"{name} was {found.get(name)}, now {values[name]}" for name in differing)
        raise ValueError(f"{path.parent} already contains {holds} ({changes}); choose another folder")
