"""Statistics of a whole manifest, computed in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from genviews.inspection.histograms import Histogram, histogram
from viewgen.manifest import Manifest

ROWS = 1 << 16  # read at a time
NAMED = ("generator", "model", "supervision", "licence")
UNITS = {  # of strength, by generator
    "eldm": "fraction of the noise process",
    "icgan": "truncation",
    "maskgit": "fraction masked",
    "unclip": "noise level",
}


@dataclass(frozen=True, kw_only=True)
class ManifestStats:
    """Counts over all rows of a manifest.

    Attributes:
        views: rows.
        images: number of distinct keys.
        named: number of views of each generator, model, supervision and licence.
        strength: None if no view has one.
        foreground_ratio: ratios given to the generator; None without any.
    """

    views: int
    images: int
    named: dict[str, Counter[str]]
    strength: Histogram | None
    foreground_ratio: Histogram | None


def manifest_stats(manifest: Manifest) -> ManifestStats:
    """Compute the statistics of a manifest, batch by batch."""
    images, last = 0, None
    named: dict[str, Counter[str]] = {name: Counter() for name in NAMED}
    for batch in manifest.batches(ROWS, ["key", *NAMED]):
        keys = batch.column("key")
        images += int(keys[0].as_py() != last) + pc.call_function("not_equal", [keys[1:], keys[:-1]]).true_count
        last = keys[-1].as_py()
        for name, counter in named.items():
            for counted in batch.column(name).value_counts().to_pylist():
                counter[counted["values"]] += counted["counts"]
    units = {strength_unit(name) for name in named["generator"]}
    strength = units.pop() if len(units) == 1 else "strength"
    return ManifestStats(
        views=sum(manifest.group_rows),
        images=images,
        named=named,
        strength=histogram(
            f"{strength.capitalize()} of all views", {"views": _column(manifest, "strength")}, each_value=True
        ),
        foreground_ratio=histogram(
            "Foreground ratio given to the generator", {"views": _column(manifest, "foreground_ratio")}
        ),
    )


def strength_unit(generator: str) -> str:
    """Return the unit of a generator's strength."""
    return UNITS.get(generator, "strength")


def _column(manifest: Manifest, name: str) -> Callable[[], Iterator[np.ndarray]]:
    def parts() -> Iterator[np.ndarray]:
        for batch in manifest.batches(ROWS, [name]):
            yield batch.column(0).to_numpy(zero_copy_only=False).astype(float)

    return parts
