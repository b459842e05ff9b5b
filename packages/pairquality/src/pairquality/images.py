"""Read the images under a folder in prefetched batches; reading and listing are from genviews_core."""

import heapq
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from torch import Tensor

from genviews_core.images import UnreadableImage, read_image
from genviews_core.keys import name_fault

Read = tuple[str, Tensor | UnreadableImage]


def choose_keys(keys: Iterator[str], count: int, seed: int) -> list[str]:
    """A uniform choice, sorted: the keys with the smallest hashes; holds no more than these."""

    def draw(key: str) -> bytes:
        return blake2b(f"choose images/{seed}/{key}".encode(errors="surrogateescape"), digest_size=16).digest()

    return sorted(heapq.nsmallest(count, keys, key=draw))


def read_batches(
    root: str | os.PathLike[str], keys: Iterable[str], size: int, *, batch_size: int, workers: int
) -> Iterator[list[Read]]:
    """Batches of keys with their images, or why one cannot be read; threads read one batch ahead."""
    rest, ahead = iter(keys), deque[list[tuple[str, Future[Tensor | UnreadableImage]]]]()
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(rest, batch_size)):
            ahead.append([(key, pool.submit(_read, Path(root), key, size)) for key in chunk])
            if len(ahead) == 2:
                yield [(key, future.result()) for key, future in ahead.popleft()]
        for chunk in ahead:
            yield [(key, future.result()) for key, future in chunk]


def _read(root: Path, key: str, size: int) -> Tensor | UnreadableImage:
    try:
        if fault := name_fault(key):
            raise UnreadableImage(f"cannot read {key!r}; {fault}")
        return read_image(root / key, size)
    except UnreadableImage as error:
        return error
