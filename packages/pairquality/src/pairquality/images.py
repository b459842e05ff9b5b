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
    """Return a uniform sample of keys, sorted: those with the smallest hashes. Memory is proportional to ``count``."""

    def draw(key: str) -> bytes:
        return blake2b(f"choose images/{seed}/{key}".encode(errors="surrogateescape"), digest_size=16).digest()

    return sorted(heapq.nsmallest(count, keys, key=draw))


def read_batches(
    root: str | os.PathLike[str], keys: Iterable[str], size: int, *, batch_size: int, workers: int
) -> Iterator[list[Read]]:
    """Yield batches of (key, image), with an error in place of an unreadable image; threads read one batch ahead."""
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
