"""Pairs chosen by seed from a manifest of any length: only the row groups that hold one are read."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from viewgen.manifest import SCHEMA, Row


def open_manifest(views: Path) -> pq.ParquetFile:
    """The manifest of a folder of views.

    Raises:
        ValueError: if there is none, or it is damaged, empty, or not of views.
    """
    path = views / "manifest.parquet"
    if not path.is_file():
        raise ValueError(f"{views} has no manifest.parquet: run `viewgen index {views}` on the views of a run")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {path} ({str(error).splitlines()[0]}): run `viewgen index` again") from error
    if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: it is not a manifest of views")
    if not file.metadata.num_rows:
        raise ValueError(f"{path} lists no view yet: make some with `viewgen generate`")
    return file


def draw_rows(file: pq.ParquetFile, count: int, seed: int) -> list[Row]:
    """``count`` rows, or all if there are fewer, each equally likely, in the order they were drawn.

    Args:
        file: the manifest.
        count: rows wanted.
        seed: of the draw.
    """
    total = file.metadata.num_rows
    digest = blake2b(f"inspect/{seed}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest, "big")).choice(total, size=min(count, total), replace=False)
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    groups = np.searchsorted(ends, drawn, side="right")
    rows: list[Row | None] = [None] * len(drawn)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        start = ends[group] - file.metadata.row_group(group).num_rows
        table = file.read_row_group(group, columns=SCHEMA.names).take(pa.array(drawn[places] - start))
        for place, record in zip(places, table.to_pylist(), strict=True):
            rows[place] = Row(**record)
    return [row for row in rows if row is not None]
