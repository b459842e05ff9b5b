"""Pairs chosen by seed from a manifest of any length: only the row groups that hold one are read."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa

from viewgen.manifest import SCHEMA, Manifest, Row


def draw_rows(manifest: Manifest, count: int, seed: int) -> list[Row]:
    """``count`` rows, or all if there are fewer, each equally likely, in the order they were drawn.

    Args:
        manifest: of the views.
        count: rows wanted.
        seed: of the draw.
    """
    group_rows = manifest.group_rows
    total = sum(group_rows)
    digest = blake2b(f"inspect/{seed}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest, "big")).choice(total, size=min(count, total), replace=False)
    ends = np.cumsum(group_rows)
    groups = np.searchsorted(ends, drawn, side="right")
    rows: list[Row | None] = [None] * len(drawn)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        start = ends[group] - group_rows[group]
        table = manifest.read_group(int(group), SCHEMA.names).take(pa.array(drawn[places] - start))
        for place, record in zip(places, table.to_pylist(), strict=True):
            rows[place] = Row(**record)
    return [row for row in rows if row is not None]
