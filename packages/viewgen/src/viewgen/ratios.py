"""Foreground ratios of images, read from a table batch by batch; a million keys of 30 characters take 60 MB.

Shapes: N images.
"""

import json
import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

SCHEMA = pa.schema([("key", pa.large_string()), ("foreground_ratio", pa.float64())])
ROWS = 1 << 16  # read or hashed at a time


class ForegroundRatios:
    """Key -> foreground ratio in [0, 1].

    Args:
        batches: record batches of ``SCHEMA``, with rows in any order.

    Attributes:
        hash: hash of all keys and ratios, independent of their order.

    Raises:
        ValueError: if a key is missing or stands twice, or a ratio is missing or not in [0, 1].
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._keys, self._ratios = _gather(batches)
        outside = ~((self._ratios >= 0) & (self._ratios <= 1))
        if outside.any():
            index = int(outside.argmax())
            raise ValueError(
                f"expected a foreground ratio in [0, 1] for {self._keys[index].as_py()!r}, got {self._ratios[index]}"
            )
        self._order = pc.call_function("array_sort_indices", [self._keys]).to_numpy()
        self.hash = self._hash()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "ForegroundRatios":
        """Read a Parquet, CSV or JSON-lines file with the columns ``key`` and ``foreground_ratio``.

        Raises:
            ValueError: if the file is missing, cannot be read, or lacks a column; or as the class does.
        """
        path = Path(path)
        if path.suffix not in READERS:
            raise ValueError(f"expected a {', '.join(READERS)} file of foreground ratios, got {path}")
        try:
            return cls(batch.select(SCHEMA.names).cast(SCHEMA) for batch in READERS[path.suffix](path))
        except (OSError, KeyError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"cannot read the columns key and foreground_ratio of {path}: {reason}") from error

    def __len__(self) -> int:
        return len(self._ratios)

    def __getitem__(self, key: str) -> float:
        """Return the ratio of ``key``.

        Raises:
            ValueError: if there is none.
        """
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            row = self._order[middle]
            found = self._keys[row].as_py()
            if found == key:
                return float(self._ratios[row])
            low, high = (middle + 1, high) if found < key else (low, middle)
        raise ValueError(f"expected a foreground ratio for {key!r}, got none; compute the ratios of all images")

    def _hash(self) -> str:
        """Hash all pairs in the order of their keys and reject duplicates."""
        digest, last = blake2b(digest_size=16), None
        for start in range(0, len(self), ROWS):
            rows = self._order[start : start + ROWS]
            keys = self._keys.take(pa.array(rows)).to_pylist()
            for before, key in pairwise([last, *keys]):
                if before == key:
                    raise ValueError(f"expected one foreground ratio for {key!r}, got several")
            last = keys[-1]
            digest.update(json.dumps(keys).encode() + self._ratios[rows].astype("<f8").tobytes())
        return digest.hexdigest()


def _gather(batches: Iterable[pa.RecordBatch]) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Read all rows into two arrays, with one batch in memory besides these."""
    letters, lengths, ratios = bytearray(), [np.zeros(1, np.int64)], []
    for batch in batches:
        keys, values = batch.columns
        if keys.null_count:
            raise ValueError("expected a key in every row of the foreground ratios, got a row without")
        letters += "".join(keys.to_pylist()).encode()
        lengths.append(pc.call_function("binary_length", [keys]).to_numpy())
        ratios.append(values.to_numpy(zero_copy_only=False))
    offsets = np.concatenate(lengths).cumsum()
    keys = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(letters))
    return keys, np.concatenate([np.zeros(0), *ratios])


def _read_parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=ROWS, columns=SCHEMA.names, use_threads=False)


def _read_csv(path: Path) -> Iterator[pa.RecordBatch]:
    types = dict(zip(SCHEMA.names, SCHEMA.types, strict=True))
    options = pyarrow.csv.ConvertOptions(column_types=types, include_columns=SCHEMA.names)
    with pyarrow.csv.open_csv(path, convert_options=options) as batches:
        yield from batches


def _read_jsonl(path: Path) -> Iterator[pa.RecordBatch]:
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    with pyarrow.json.open_json(path, parse_options=options) as batches:
        yield from batches


READERS = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}
