"""The plan of a run: its views in chunks of fixed size, and which of them are missing.

The views are the sorted list of (key, k), split into chunks. A chunk is always computed as a whole, so the bytes of a
view do not depend on interruptions or on which worker computes which chunk. A plan is stored in a folder, from which
workers read their chunks by number.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genviews_core.files import make_folder, write_json
from viewgen.keys import HashedPathSet, KeyFile
from viewgen.seeding import view_seed

HASHED = 100_000  # paths looked up at a time


class WantedView(NamedTuple):
    """View ``k`` of the image ``key``: its path under the views' root, and its seed."""

    key: str
    k: int
    path: str
    seed: int


class Chunk(NamedTuple):
    """Views that are computed together, and the indices of those that are missing."""

    views: list[WantedView]
    missing: list[int]


class Plan:
    """The chunks of a shard.

    Args:
        folder: folder written by ``Plan.make``.

    Attributes:
        wanted: number of views in this shard.
        missing: number of views that do not exist yet.
        chunks: ascending numbers of the chunks with missing views.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "plan.json").read_text())
        self.views_per_image: int = about["views_per_image"]
        self.batch_size: int = about["batch_size"]
        self._seed, self._format = about["seed"], about["image_format"]
        self.wanted, self.missing = about["wanted"], about["missing"]
        self._keys = KeyFile(folder / "keys.jsonl")
        self._lacks = np.load(folder / "lacks.npy", mmap_mode="r")
        self.chunks: np.ndarray = np.load(folder / "chunks.npy", mmap_mode="r")

    @classmethod
    def make(
        cls,
        folder: Path,
        keys: Iterable[str],
        whole: HashedPathSet,
        *,
        views_per_image: int,
        batch_size: int,
        seed: int,
        image_format: str,
        shard: tuple[int, int],
    ) -> "Plan":
        """Write a plan to ``folder``.

        Args:
            folder: folder of the plan; created if missing.
            keys: ascending keys of the images.
            whole: paths of views that exist and are recorded.
            views_per_image: K.
            batch_size: views per chunk.
            seed: seed of the run.
            image_format: suffix of the views.
            shard: (index, count); shard i has the chunks i, i + count, ...

        Raises:
            ValueError: if there is no key.
        """
        make_folder(folder)
        listed = KeyFile.write(folder / "keys.jsonl", keys)
        if not listed:
            raise ValueError(
                "expected images to generate views of, got none; give a folder of images, or a list of their keys"
            )
        count = len(listed) * views_per_image
        numbers = np.arange(shard[0], -(-count // batch_size), shard[1])
        lacks = np.zeros(count, dtype=bool)
        own = np.zeros(count, dtype=bool)
        for number in numbers:
            own[number * batch_size : (number + 1) * batch_size] = True
        for start in range(0, count, HASHED):
            indices = start + np.flatnonzero(own[start : start + HASHED])
            lacks[indices] = ~whole.contains(_paths(listed, indices, views_per_image, image_format))
        lacking = [number for number in numbers if lacks[number * batch_size : (number + 1) * batch_size].any()]
        np.save(folder / "lacks.npy", np.packbits(lacks))
        np.save(folder / "chunks.npy", np.array(lacking, dtype=np.int64))
        about = {"views_per_image": views_per_image, "batch_size": batch_size, "seed": seed}
        counts = {"wanted": int(own.sum()), "missing": int(lacks.sum())}
        write_json(folder / "plan.json", {**about, "image_format": image_format, **counts})
        return cls(folder)

    def chunk(self, number: int) -> Chunk:
        """Return a chunk by its number."""
        first = number * self.batch_size
        indices = np.arange(first, min(first + self.batch_size, len(self._keys) * self.views_per_image))
        bits = self._lacks[indices // 8] >> (7 - indices % 8) & 1
        views = []
        for index in indices.tolist():
            row, k = divmod(index, self.views_per_image)
            key = self._keys[row]
            views.append(WantedView(key, k, f"{key}.{k}.{self._format}", view_seed(self._seed, key, k)))
        return Chunk(views, np.flatnonzero(bits).tolist())


def _paths(keys: KeyFile, indices: np.ndarray, views_per_image: int, image_format: str) -> list[str]:
    split = (divmod(index, views_per_image) for index in indices.tolist())
    return [f"{keys[row]}.{k}.{image_format}" for row, k in split]
