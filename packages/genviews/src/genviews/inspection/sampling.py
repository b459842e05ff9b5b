"""Sample rows of a manifest of any length; only row groups that contain a sampled row are read."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from viewgen.manifest import SCHEMA, Manifest, Row


def draw_rows(manifest: Manifest, count: int, seed: int) -> list[Row]:
    """Sample rows uniformly without replacement, in random order.

    Args:
        manifest: manifest of the views.
        count: number of rows; all rows are returned if there are fewer.
        seed: seed of the sample.
    """
    group_rows = manifest.group_rows
    total = sum(group_rows)
    digest = blake2b(f"inspect/{seed}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest, "big")).choice(total, size=min(count, total), replace=False)
    ends = np.cumsum(group_rows)
    groups = np.searchsorted(ends, drawn, side="right")
    rows: list[Row | None] = [None] * len(drawn)
    for group in np.unique(groups):
        positions = np.flatnonzero(groups == group)
        start = ends[group] - group_rows[group]
        table = manifest.read_group(int(group), SCHEMA.names).take(pa.array(drawn[positions] - start))
        for position, record in zip(positions, table.to_pylist(), strict=True):
            rows[position] = Row(**record)
    return [row for row in rows if row is not None]
