"""Sets of paths at sixteen bytes each."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np

BLOCK = 100_000


class PathSet:
    """A frozen set that keeps the 128-bit hashes of its paths, not the paths.

    Two of a billion paths share a hash with a probability of about 1e-21.

    Args:
        paths: its members; repeats are welcome.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        rest, blocks = iter(paths), [np.empty(0, dtype="S16")]
        while block := list(islice(rest, BLOCK)):
            blocks.append(_hashes(block))
        self._hashes = np.sort(np.concatenate(blocks))

    def holds(self, paths: Sequence[str]) -> np.ndarray:
        """Which of the paths are members: bool array of the same length."""
        if not len(self._hashes):
            return np.zeros(len(paths), dtype=bool)
        wanted = _hashes(paths)
        places = np.searchsorted(self._hashes, wanted)
        return self._hashes[np.minimum(places, len(self._hashes) - 1)] == wanted

    def __and__(self, other: "PathSet") -> "PathSet":
        both = PathSet()
        both._hashes = np.intersect1d(self._hashes, other._hashes)
        return both

    def __sub__(self, other: "PathSet") -> "PathSet":
        rest = PathSet()
        rest._hashes = np.setdiff1d(self._hashes, other._hashes)
        return rest

    def __bool__(self) -> bool:
        return len(self._hashes) > 0

    def __contains__(self, path: str) -> bool:
        return bool(self.holds([path])[0])


def _hashes(paths: Sequence[str]) -> np.ndarray:
    digests = (blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).digest() for path in paths)
    return np.frombuffer(b"".join(digests), dtype="S16")
