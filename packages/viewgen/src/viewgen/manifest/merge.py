"""Merge journals into one sorted Parquet file in bounded memory.

Rows are sorted in runs of ``RUN_ROWS``; then, range of keys by range of keys, the runs' shares are put together.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genviews_core.files import atomic_write
from genviews_core.lock import lock_file
from viewgen.manifest.journal import journal_paths, journal_tables
from viewgen.manifest.table import SCHEMA

RUN_ROWS = 250_000
GROUP_ROWS = 100_000  # per Parquet row group of the manifest
RUN_GROUP_ROWS = 8_192  # per row group of a run: what a range reads beyond its own rows
ORDER = [("key", "ascending"), ("k", "ascending"), ("place", "ascending")]


def merge_journals(views_root: str | os.PathLike[str]) -> Path:
    """Write all journals as ``manifest.parquet``, sorted by key and k, one row per view.

    The same views give the same bytes for any workers and interruptions. Of two rows of a view the later is kept.

    Returns:
        The file's path.

    Raises:
        ValueError: if there is no journal, a journal has an invalid line, the manifest cannot be written, or another
            process is writing it.
    """
    root = Path(views_root)
    target = root / "manifest.parquet"
    journal_paths(root)  # raises if there is none, before the lock creates a folder

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            for table in _regroup(sorted_rows(root)):
                writer.write_table(table)

    with lock_file(target):
        atomic_write(target, write)
    return target


def sorted_rows(views_root: Path, broken: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield tables of rows, ascending by key and k within and between them, one row per view.

    Invalid lines are added to ``broken``, as in ``journal_tables``.
    """
    with tempfile.TemporaryDirectory(prefix=".fold-", dir=views_root) as folder:
        runs = _write_runs(views_root, Path(folder), broken)
        bounds = [None, *_splitters(runs), None]
        for low, high in pairwise(bounds):
            yield _last_of_each(pa.concat_tables([_between(run, low, high) for run in runs]).sort_by(ORDER))


def _write_runs(views_root: Path, folder: Path, broken: list[str] | None) -> list[Path]:
    """Write sorted runs of rows as Parquet files; the last column holds each row's index among all rows."""
    runs, held, count, place = [], [], 0, 0
    for journal in journal_paths(views_root):
        for table in journal_tables(journal, broken=broken):
            places = pa.array(np.arange(place, place + len(table)))
            held.append(table.append_column("place", places))
            place, count = place + len(table), count + len(table)
            if count >= RUN_ROWS:
                runs.append(_write_run(folder / f"{len(runs)}.parquet", held))
                held, count = [], 0
    if held or not runs:
        held = held or [SCHEMA.append(pa.field("place", pa.int64())).empty_table()]
        runs.append(_write_run(folder / f"{len(runs)}.parquet", held))
    return runs


def _write_run(path: Path, tables: list[pa.Table]) -> Path:
    pq.write_table(pa.concat_tables(tables).sort_by(ORDER), path, row_group_size=RUN_GROUP_ROWS, compression="zstd")
    return path


def _splitters(runs: list[Path]) -> list[str]:
    """Return keys that split all rows into ranges of about ``RUN_ROWS``: a subset of the first keys of row groups."""
    firsts = sorted(first for run in runs for first in _group_firsts(run))
    step = max(1, RUN_ROWS // RUN_GROUP_ROWS)
    return sorted(set(firsts[step::step]))


def _group_firsts(run: Path) -> list[str]:
    file = pq.ParquetFile(run)
    return [
        file.read_row_group(group, ["key"]).column(0)[0].as_py()
        for group in range(file.num_row_groups)
        if file.metadata.row_group(group).num_rows
    ]


def _between(run: Path, low: str | None, high: str | None) -> pa.Table:
    """Return the rows of a run with low <= key < high."""
    wanted = pc.scalar(True)
    if low is not None:
        wanted = wanted & (pc.field("key") >= low)
    if high is not None:
        wanted = wanted & (pc.field("key") < high)
    return pq.read_table(run, filters=wanted)


def _last_of_each(table: pa.Table) -> pa.Table:
    """Return the last row for each (key, k) of a sorted table."""
    table = table.drop_columns("place").combine_chunks()
    if len(table) < 2:
        return table
    paths = table.column("path")
    last = pc.call_function("not_equal", [paths.slice(0, len(table) - 1), paths.slice(1)]).combine_chunks()
    return table.filter(pa.concat_arrays([last, pa.array([True])]))


def _regroup(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of ``GROUP_ROWS``, so that row groups do not depend on the runs."""
    held = SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table.cast(SCHEMA)])
        while len(held) >= GROUP_ROWS:
            yield held.slice(0, GROUP_ROWS).combine_chunks()
            held = held.slice(GROUP_ROWS)
    if len(held):
        yield held.combine_chunks()
