"""Keys: the names by which images are known, lists of them in files, and sets of them in little memory.

A key is an image's POSIX path relative to its data set's root. A million keys take eight bytes each in a ``KeyFile``
and sixteen in a ``HashedPathSet``.
"""

import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from genviews_core.channels import read_tensor
from genviews_core.images import SUFFIXES, UnreadableImage, read_image  # noqa: F401  (re-exported)
from genviews_core.keys import leaves_folder, name_fault
from genviews_core.listing import iter_images
from genviews_core.pixel_range import Range


def list_images(root: str | os.PathLike[str]) -> list[str]:
    """Return the sorted keys (POSIX paths relative to ``root``) of all images under it, as ``iter_images`` finds them.

    Raises:
        ValueError: if ``root`` is not a folder or has no image, or if a folder in it cannot be read.
    """
    keys = list(iter_images(root))
    if not keys:
        raise ValueError(f"expected images ({', '.join(sorted(SUFFIXES))}) under {root}, got none")
    return keys


@runtime_checkable
class KeyedImages(Protocol):
    """Images that are not files of their own, such as ``viewgen.sharded.ShardedImages``."""

    def read(self, key: str) -> bytes:
        """Return the bytes of an image."""
        ...


def read_key(
    root: Path | KeyedImages, key: str, size: int | None = None, *, channels: int = 3, value_range: Range | None = None
) -> UInt8[Tensor, "C H W"]:
    """Read the image ``key`` under ``root``; with ``size``, its central square at that many pixels.

    Args:
        root: folder of the images, or images in shards.
        key: key of the image.
        size: side of the square in pixels.
        channels: C; three for RGB.
        value_range: values mapped to 0 and 255 in images of more than 8 bits and other than three channels.

    Raises:
        UnreadableImage: if it is no image, or as ``key_path`` does.
    """
    if isinstance(root, Path):
        return read_tensor(key_path(root, key), channels, size, value_range=value_range)
    try:
        return read_tensor(root.read(key), channels, size, value_range=value_range)
    except UnreadableImage as error:
        reason = f"cannot read the image {key!r}: {error.reason}" if error.reason else str(error)
        raise UnreadableImage(reason) from error


def key_path(root: Path, key: str) -> Path:
    """Return the file of ``key`` under ``root``.

    Raises:
        UnreadableImage: if the key is empty, absolute or has ``..``, and so could refer to a file outside ``root``; or
            if it is not UTF-8, and so cannot be written to a manifest.
    """
    if leaves_folder(key) or not PurePosixPath(key).parts:
        raise UnreadableImage(f"expected a key that is a path inside its folder, without '..', got {key!r}")
    if fault := name_fault(key):
        raise UnreadableImage(f"the key {key!r} is refused; {fault}")
    return root / key


def read_key_list(
    path: str | os.PathLike[str], images_root: str | os.PathLike[str]
) -> tuple[list[str], dict[str, str]]:
    """Read a list of keys.

    The file has one key per line, or one JSON string per line if its suffix is ``.jsonl``, which allows line breaks in
    keys. "./a//b.png" is read as "a/b.png"; empty lines are skipped. Whether the images exist is not checked.

    Args:
        path: the list.
        images_root: folder that the keys are relative to.

    Returns:
        The sorted keys without repetitions; and the invalid lines (absolute, with ``..``, not UTF-8, not JSON) with the
        reasons.

    Raises:
        ValueError: if the list cannot be read or has no key.
    """
    path, root = Path(path), Path(images_root)
    keys, refused = set[str](), dict[str, str]()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for line in (line.removesuffix("\n").removesuffix("\r") for line in lines):
                try:
                    keys.update(_keys_of(line, as_json=path.suffix == ".jsonl", root=root))
                except UnreadableImage as error:
                    refused[line] = str(error)
    except OSError as error:
        raise ValueError(f"cannot read the list of images {path}: {error.strerror}") from error
    if not keys and not refused:
        raise ValueError(f"expected one key per line in {path}, got an empty list")
    return sorted(keys), refused


def _keys_of(line: str, *, as_json: bool, root: Path) -> list[str]:
    """Return the key of a line; an empty line has none."""
    if not line:
        return []
    key = line
    if as_json:
        try:
            key = json.loads(line)
        except ValueError:
            key = None
        if not isinstance(key, str):
            raise UnreadableImage("expected one JSON string per line, got another line")
    key_path(root, key)
    return [str(PurePosixPath(key))]


SCAN_BYTES = 1 << 24


class KeyFile(Sequence[str]):
    """A sequence of ascending keys in a file with one JSON string per line, read from disk on access.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._ends = _line_ends(self.path)
        with self.path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self._ends) else b""

    @classmethod
    def write(cls, path: Path, keys: Iterable[str]) -> "KeyFile":
        """Write ascending keys to ``path`` and open it."""
        last = None
        with path.open("w") as file:
            for key in keys:
                assert last is None or last < key, f"{key!r} follows {last!r}"
                file.write(json.dumps(key) + "\n")
                last = key
        return cls(path)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        start = int(self._ends[row - 1]) if row else 0
        return json.loads(self._data[start : int(self._ends[row])])

    def row(self, key: str) -> int | None:
        """Return the index of a key, or None."""
        row = bisect_left(self, key)
        return row if row < len(self) and self[row] == key else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


def _line_ends(path: Path) -> np.ndarray:
    """Return the offset after each newline."""
    ends, offset = [np.empty(0, dtype=np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(SCAN_BYTES):
            ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 0x0A) + offset + 1)
            offset += len(block)
    return np.concatenate(ends)


BLOCK = 100_000


class HashedPathSet:
    """An immutable set of paths that stores only their 128-bit hashes.

    The probability that any two of a billion paths have the same hash is about 1e-21.

    Args:
        paths: members, possibly repeated.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        rest, blocks = iter(paths), [np.empty(0, dtype="S16")]
        while block := list(islice(rest, BLOCK)):
            blocks.append(_hashes(block))
        self._hashes = np.sort(np.concatenate(blocks))

    def contains(self, paths: Sequence[str]) -> np.ndarray:
        """Return a bool array: whether each path is a member."""
        if not len(self._hashes):
            return np.zeros(len(paths), dtype=bool)
        wanted = _hashes(paths)
        indices = np.searchsorted(self._hashes, wanted)
        return self._hashes[np.minimum(indices, len(self._hashes) - 1)] == wanted

    def __and__(self, other: "HashedPathSet") -> "HashedPathSet":
        both = HashedPathSet()
        both._hashes = np.intersect1d(self._hashes, other._hashes)
        return both

    def __sub__(self, other: "HashedPathSet") -> "HashedPathSet":
        rest = HashedPathSet()
        rest._hashes = np.setdiff1d(self._hashes, other._hashes)
        return rest

    def __bool__(self) -> bool:
        return len(self._hashes) > 0

    def __contains__(self, path: str) -> bool:
        return bool(self.contains([path])[0])


def _hashes(paths: Sequence[str]) -> np.ndarray:
    digests = (blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).digest() for path in paths)
    return np.frombuffer(b"".join(digests), dtype="S16")
