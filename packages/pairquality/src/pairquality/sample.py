"""A uniform sample of a stream, of bounded size.

Shapes: n rows of a batch, m rows kept, d width.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor


class UniformSample:
    """Rows of a stream, each subset of the given size equally likely; all of them while they fit.

    Every row draws a number, and the rows with the smallest numbers stay. So the sample depends on the seed and on the
    rows' order in the stream, not on how the stream is cut into batches.
    """

    def __init__(self, capacity: int, width: int, seed: int, *, stream: int = 0) -> None:
        """Keeps at most `capacity` rows of `width` floats, on the CPU; streams draw numbers of their own."""
        digest = hashlib.blake2b(f"uniform sample/{seed}/{stream}".encode(), digest_size=8).digest()
        self._generator = np.random.default_rng(int.from_bytes(digest, "big"))
        self._rows = torch.empty(capacity, width)
        self._keys = torch.empty(capacity, dtype=torch.float64)
        self._size = 0

    @property
    def rows(self) -> Float[Tensor, "m d"]:
        """The rows kept so far, in no particular order."""
        return self._rows[: self._size]

    @property
    def keys(self) -> Float64[Tensor, " m"]:
        """The numbers that the kept rows drew; over several streams, the smallest of all make a uniform sample."""
        return self._keys[: self._size]

    @property
    def capacity(self) -> int:
        """How many rows it can keep."""
        return len(self._keys)

    def add(self, rows: Float[Tensor, "n d"]) -> None:
        """Lets the next rows of the stream take part."""
        keys = torch.from_numpy(self._generator.random(len(rows)))
        filling = min(len(rows), len(self._keys) - self._size)
        places = slice(self._size, self._size + filling)
        self._rows[places], self._keys[places] = rows[:filling].cpu().float(), keys[:filling]
        self._size += filling
        if filling < len(rows):
            self._replace(rows[filling:], keys[filling:])

    def _replace(self, rows: Float[Tensor, "n d"], keys: Float[Tensor, " n"]) -> None:
        """Puts the rows with smaller numbers in the place of those with larger ones."""
        capacity = len(self._keys)
        stays = torch.zeros(capacity + len(keys), dtype=torch.bool)
        stays[torch.cat([self._keys, keys]).topk(capacity, largest=False).indices] = True
        leaving = (~stays[:capacity]).nonzero().squeeze(1)
        coming = stays[capacity:].nonzero().squeeze(1)
        self._rows[leaving] = rows[coming.to(rows.device)].cpu().float()
        self._keys[leaving] = keys[coming]
