"""Choose the rows of a few images.

Of the manifest only some row groups are read; of the journals every row, but few are held.
"""

import heapq
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from viewgen.manifest.journal import journal_paths, journal_tables
from viewgen.manifest.table import Manifest, open_manifest
from viewgen.seeding import generator_for, stable_seed

Row = dict[str, Any]
COLUMNS = ("key", "k", "path", "generator", "model", "strength", "foreground_ratio", "partner_key", "alpha")
TRIES = 50  # rows drawn per image wanted, before the manifest is taken to have no more images


def choose_rows(views_root: Path, count: int, seed: int | None) -> list[list[Row]]:
    """The rows of ``count`` images, or of all if there are fewer: by key, and by k within.

    Raises:
        ValueError: there is no view, or the manifest or a journal is damaged or lists a path outside the folder.
    """
    if (views_root / "manifest.parquet").is_file():
        opened = open_manifest(views_root)
        keys = _draw_keys(opened, count, seed)
        found = [opened.read_keys(keys, COLUMNS)]
    else:
        keys = _least_keys(views_root, count, seed)
        found = [table.filter(pc.field("key").isin(keys)) for table in _journals(views_root, COLUMNS)] if keys else []
    if not keys:
        raise ValueError(f"{views_root} has no view yet: make some with `viewgen generate`")
    rows = {(row["key"], row["k"]): row for table in found for row in table.to_pylist()}
    return [[rows[place] for place in sorted(rows) if place[0] == key] for key in sorted(keys)]


def _draw_keys(manifest: Manifest, count: int, seed: int | None) -> list[str]:
    """Return the keys of rows sampled from the whole manifest, or of the first rows if there is no seed."""
    groups = manifest.group_rows
    total = sum(groups)

    @lru_cache(maxsize=1)
    def keys_of(group: int) -> pa.ChunkedArray:
        return manifest.read_group(group, ["key"])["key"]

    keys = dict[str, None]()
    generator = generator_for(seed or 0, "contact sheet")
    for draw in range(total if seed is None else TRIES * count):
        row = draw if seed is None else int(torch.randint(total, (), generator=generator))
        group = 0
        while row >= groups[group]:
            row, group = row - groups[group], group + 1
        keys[keys_of(group)[row].as_py()] = None
        if len(keys) == count:
            break
    return list(keys)


def _least_keys(views_root: Path, count: int, seed: int | None) -> list[str]:
    """The keys of least hash, or the first ones; every journal is read, but few of its rows are held."""
    keys = dict[str, None]()
    for table in _journals(views_root, ["key"]):
        keys.update(dict.fromkeys(table["key"].unique().to_pylist()))
        rank = None if seed is None else (lambda key: stable_seed(seed, key))
        keys = dict.fromkeys(heapq.nsmallest(count, keys, key=rank))
    return list(keys)


def _journals(views_root: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    for path in journal_paths(views_root):
        yield from journal_tables(path, columns)
