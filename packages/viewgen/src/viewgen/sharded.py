"""The images of a data set in shards, by key, for whatever reads the images of a folder."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genviews_core.files import make_folder
from genviews_core.images import UnreadableImage
from genviews_core.listing import iter_images
from genviews_core.shards import Entry, ShardError, ShardReader, find_shards, is_sharded, list_shard
from viewgen.keys import KeyFile

LISTING = 8  # shards listed at a time


class ShardedImages:
    """Random access to the images of shards through an index of their places. Processes may share it.

    Args:
        folder: what ``ShardedImages.index`` wrote.

    Attributes:
        keys: ascending keys of all images.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.keys = KeyFile(folder / "keys.jsonl")
        self._shards = KeyFile(folder / "shards.jsonl")
        self._places = np.load(folder / "places.npy", mmap_mode="r")
        self._reader = ShardReader()

    @classmethod
    def index(
        cls, source: str | os.PathLike[str], folder: Path, on_refused: Callable[[str, str], object] = lambda *_: None
    ) -> "ShardedImages":
        """List all shards and write where each image is, about thirty bytes and its key.

        Args:
            source: see ``genviews_core.shards.find_shards``.
            folder: folder of the index; created if missing.
            on_refused: called with the name and the reason for each image that is refused.

        Raises:
            ValueError: there are no shards or images, a shard cannot be listed, or two images have the same key.
        """
        shards, make = find_shards(source), make_folder(folder)
        tables = []
        with ThreadPoolExecutor(LISTING) as pool:
            for number, (table, refused) in enumerate(pool.map(_listed, shards)):
                tables.append(table.append_column("shard", pa.array(np.full(len(table), number))))
                for name, reason in refused:
                    on_refused(name, reason)
        places = pa.concat_tables(tables).sort_by("key")
        if not len(places):
            raise ValueError(f"expected images in the {len(shards)} shards of {os.fspath(source)}, got none")
        _refuse_repeated(places, shards)
        KeyFile.write(make / "shards.jsonl", shards)
        KeyFile.write(make / "keys.jsonl", (key.as_py() for key in places["key"]))
        columns = [places[name].to_numpy() for name in ("shard", "start", "extent")]
        np.save(make / "places.npy", np.stack(columns, 1))
        return cls(folder)

    def read(self, key: str) -> bytes:
        """Return the bytes of an image.

        Raises:
            UnreadableImage: there is no such image, or its shard cannot be read.
        """
        if (row := self.keys.row(key)) is None:
            raise UnreadableImage(f"there is no image {key!r} in the shards")
        shard, start, extent = self._places[row].tolist()
        try:
            return self._reader.read(self._shards[shard], Entry(key, start, extent))
        except ShardError as error:
            raise UnreadableImage(str(error)) from error

    def __reduce__(self) -> tuple:
        return ShardedImages, (self._folder,)


Images = Path | ShardedImages
"""A folder of images, or the images of shards."""


@contextlib.contextmanager
def open_images(
    source: str | os.PathLike[str],
    folder: Path | None = None,
    on_refused: Callable[[str, str], object] = lambda *_: None,
) -> Iterator[Images]:
    """Open images for ``image_keys`` and ``viewgen.keys.read_key``.

    Args:
        source: a folder, or what ``genviews_core.shards.find_shards`` takes.
        folder: where the index of shards is written; a temporary folder by default.
        on_refused: see ``ShardedImages.index``.
    """
    if not is_sharded(source):
        yield Path(source)
    elif folder is not None:
        yield ShardedImages.index(source, folder, on_refused)
    else:
        with tempfile.TemporaryDirectory(prefix="viewgen-") as place:
            yield ShardedImages.index(source, Path(place), on_refused)


def image_keys(images: Images, on_error: Callable[[str, OSError], object] | None = None) -> Iterator[str]:
    """Yield the ascending keys of all images; for ``on_error`` see ``iter_images``."""
    yield from images.keys if isinstance(images, ShardedImages) else iter_images(images, on_error)


def _listed(shard: str) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Return the places of a shard's images, and the refused ones."""
    refused: list[tuple[str, str]] = []
    entries = list(list_shard(shard, lambda name, reason: refused.append((f"{shard}: {name}", reason))))
    kinds = {"key": pa.large_string(), "start": pa.int64(), "extent": pa.int64()}
    columns = zip(*entries, strict=True) if entries else ((), (), ())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
    return pa.table(arrays, names=list(kinds)), refused


def _refuse_repeated(places: pa.Table, shards: list[str]) -> None:
    keys = places["key"].combine_chunks()
    same = pc.call_function("equal", [keys.slice(0, len(keys) - 1), keys.slice(1)])
    row = pc.call_function("index", [same], pc.IndexOptions(pa.scalar(True))).as_py()
    if row >= 0:
        first, second = (shards[places["shard"][place].as_py()] for place in (row, row + 1))
        raise ValueError(
            f"expected each key once, got {keys[row].as_py()!r} in {first} and in {second}; rename one of them"
        )
