"""Write one file of records: read a few images at a time like the folder loader, encode, write, rename."""

import io
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genviews_core.files import atomic_write
from genviews_core.pixel_range import Range
from pairdata.batch import PairBatch
from pairdata.batch_reader import AlignedViews, BatchReader, BatchRequest
from pairdata.ffcv_format import BetonWriter, EncodedSquare, Value
from pairdata.index import ImageIndex
from pairdata.records import Layout

_AT_A_TIME = 32


class ShardWriter:
    """Writes any file of the records by its number; can be used by several processes.

    Args:
        index: the images.
        views: their views, or None.
        mixed: their interpolated views, or None.
        layout: the content of each row.
        shard_images: images in each file.
        out: the folder of records.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.
    """

    def __init__(
        self,
        index: ImageIndex,
        views: AlignedViews | None,
        mixed: AlignedViews | None,
        layout: Layout,
        *,
        shard_images: int,
        out: Path,
        value_range: Range | None = None,
    ):
        self.index, self.views, self.mixed, self.layout = index, views, mixed, layout
        self.shard_images, self.out = shard_images, out
        common = {"size": layout.size, "fit": "resize", "resize": None, "interpolated": mixed, "cache_bytes": 0}
        common |= {"value_range": value_range}
        self._reader = BatchReader(index, views=views, views_per_image=layout.views, **common)
        self._mixed_reader = BatchReader(index, views=None, views_per_image=0, **common)

    def file(self, number: int) -> str:
        """Return the name of a file."""
        return f"{number:05d}.beton"

    def positions(self, number: int) -> range:
        """Return the positions of the images in a file."""
        first = number * self.shard_images
        return range(first, min(first + self.shard_images, len(self.index)))

    def pack(self, number: int) -> int:
        """Write a file, and its length and hash to a JSON file; return its number."""
        path, positions, layout = self.out / self.file(number), self.positions(number), self.layout
        temporary, failures = path.with_name(path.name + ".tmp"), {}
        # Twice the bytes of the pixels, more than JPEG ever needs, and the longest key.
        row_bytes = len(layout.squares) * (6 * layout.size**2 + 4096) + 65536
        writer = BetonWriter(temporary, layout.fields, rows=len(positions), row_bytes=row_bytes)
        try:
            for row in self._rows(positions, failures):
                writer.add(row)
            writer.close()
        except BaseException:
            writer.abandon()
            temporary.unlink(missing_ok=True)
            raise
        facts = {"bytes": temporary.stat().st_size, "sha256": file_hash(temporary), "failures": failures}
        temporary.replace(path)
        atomic_write(path.with_suffix(".json"), json.dumps(facts) + "\n")
        return number

    def _rows(self, positions: range, failures: dict[str, str]) -> Iterator[dict[str, Value]]:
        for first in range(positions.start, positions.stop, _AT_A_TIME):
            wanted = np.arange(first, min(first + _AT_A_TIME, positions.stop))
            turns = []
            for turn in range(max(1, self.layout.mixed)):
                reader = self._mixed_reader if turn else self._reader
                batch, unread = reader[BatchRequest(wanted, turn)]
                turns.append(batch)
                failures |= unread
            for row, position in enumerate(wanted.tolist()):
                yield self._row(row, position, turns)

    def _row(self, row: int, position: int, turns: list[PairBatch]) -> dict[str, Value]:
        """Return the fields of one image."""
        batch, layout = turns[0], self.layout
        image = int(batch.index[row])  # the position of another one, if this image cannot be read
        real = self._encode(batch.real[row])
        listed = [0 if source is None else int(source.counts[image]) for source in (self.views, self.mixed)]
        values: dict[str, Value] = {
            "key": self.index.keys.raw(position),
            "index": image,
            "label": int(batch.label[row]),
            "views": min(listed[0], layout.views),
            "mixed": min(listed[1], layout.mixed),
        }
        values |= _square("real", real, batch.sizes[row, 0], True)
        for k in range(layout.views):
            exists = bool(batch.view_exists[row, k])
            square = self._encode(batch.views[row, k]) if exists else real
            values |= _square(f"view{k}", square, batch.sizes[row, 1 + k], exists)
        for m in range(layout.mixed):
            mixed = turns[m].mixed
            assert mixed is not None
            partner = self._partner(image, m) if mixed.exists[row] else -1
            exists = partner >= 0
            square = self._encode(mixed.interpolated[row]) if exists else real
            values |= _square(f"mixed{m}", square, mixed.sizes[row, 0], exists)
            values |= {f"mixed{m}_partner": partner if exists else image, f"mixed{m}_alpha": float(mixed.alpha[row])}
        return values

    def _partner(self, position: int, m: int) -> int:
        """Return the position of an interpolated view's partner; -1 if it is not one of the images."""
        assert self.mixed is not None
        row = int(self.mixed.rows(np.array([position]), 0, m)[0])
        return self.index.keys.find(self.mixed.views.partners[row])

    def _encode(self, pixels: torch.Tensor) -> EncodedSquare:
        square = np.ascontiguousarray(pixels.movedim(0, -1).numpy())
        if self.layout.mode == "raw":
            return EncodedSquare(square.tobytes(), "raw", self.layout.size)
        held = io.BytesIO()
        Image.fromarray(square).save(held, "JPEG", quality=self.layout.quality)
        return EncodedSquare(held.getvalue(), "jpeg", self.layout.size)


def _square(name: str, square: EncodedSquare, size: torch.Tensor, exists: bool) -> dict[str, Value]:
    height, width = size.tolist()
    return {name: square, f"{name}_exists": int(exists), f"{name}_height": height, f"{name}_width": width}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
