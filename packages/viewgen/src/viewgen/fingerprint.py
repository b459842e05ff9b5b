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
    """Of a file's bytes."""
    with Path(path).open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()


def files_hash(named: Iterable[tuple[str, Path]]) -> str:
    """Of files' names and bytes, in this order."""
    digest = blake2b(digest_size=16)
    for name, path in named:
        digest.update(f"{name}\n".encode())
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def keys_hash(keys: Iterable[str]) -> str:
    """Of the names of images."""
    digest = blake2b(digest_size=16)
    for key in keys:
        digest.update(json.dumps(key).encode())
    return digest.hexdigest()


def ensure_same_config(path: Path, values: dict[str, Any], *, holds: str) -> None:
    """Write ``values`` to a JSON file, or compare with those that are there; many workers may do so at once.

    Args:
        path: the file; its folder is made if it is missing.
        values: all that must not change.
        holds: what the folder holds if they have, for the error: "views of other settings".

    Raises:
        ValueError: values differ (the message names them), or the file cannot be written or is damaged.
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
        raise ValueError(f"{path} is damaged: choose another folder, or delete this one") from None
    differing = [name for name in values if found.get(name) != values[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {values[name]}" for name in differing)
        raise ValueError(f"{path.parent} holds {holds} ({told}): choose another folder")
