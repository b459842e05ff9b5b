"""Hashes that tell one set of files or names from another: 128 bits of BLAKE2b, in hexadecimal."""

import json
import os
from collections.abc import Iterable
from hashlib import blake2b, file_digest
from pathlib import Path

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
