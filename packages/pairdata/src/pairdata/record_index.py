"""Validate records.json and rows.npy once, when records are opened, so that reading them is safe.

Records are read by address from memory-mapped files: an offset outside a file would crash the process. The pixels
themselves are not checked here: `verify_records` compares the files' SHA-256 and decodes every square.

Legend: N rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

AT_A_TIME = 1 << 16  # rows checked at once

Check = Callable[[Any], bool]


def integer(lowest: int, highest: int) -> Check:
    """Return a check whether a value is an integer in [lowest, highest]."""
    return lambda value: type(value) is int and lowest <= value <= highest


INDEX: Mapping[str, Check] = {
    "format": integer(1, 2**31),
    "images": integer(1, 2**48),
    "layout": lambda value: isinstance(value, dict),
    "shard_images": integer(1, 2**31),
    "shards": lambda value: isinstance(value, list),
    "view_counts": lambda value: (
        isinstance(value, dict) and all(key.isdecimal() and integer(0, 2**48)(count) for key, count in value.items())
    ),
    "classes": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}
LAYOUT: Mapping[str, Check] = {
    "size": integer(1, 4096),
    "mode": lambda value: value in ("jpeg", "raw"),
    "quality": integer(0, 95),
    "views": integer(0, 2**15),
    "mixed": integer(0, 2**15),
}
SHARD: Mapping[str, Check] = {
    "file": lambda value: isinstance(value, str) and re.fullmatch(r"\d{5,}\.beton", value) is not None,
    "bytes": integer(1, 2**62),
    "sha256": lambda value: isinstance(value, str),
}


def check_index(index: Any) -> None:
    """Check that records.json has exactly the expected fields, each with a valid value.

    Raises:
        ValueError: it does not; the message says what is wrong, and the caller adds the file.
    """
    _check_fields(index, INDEX, "")
    _check_fields(index["layout"], LAYOUT, "layout.")
    for number, shard in enumerate(index["shards"]):
        _check_fields(shard, SHARD, f"shards[{number}].")
    expected = -(-index["images"] // index["shard_images"])
    if len(index["shards"]) != expected:
        raise ValueError(
            f"expected {expected} files for {index['images']} images, {index['shard_images']} in each, "
            f"got {len(index['shards'])}"
        )


def _check_fields(fields: Any, checks: Mapping[str, Check], prefix: str) -> None:
    if not isinstance(fields, dict):
        raise ValueError(f"expected fields {', '.join(checks)}, got {str(fields)[:40]!r}")
    for name in sorted(checks.keys() ^ fields.keys()):
        raise ValueError(f"the field {prefix}{name} is {'missing' if name in checks else 'unknown'}")
    for name, is_valid in checks.items():
        if not is_valid(fields[name]):
            raise ValueError(f"invalid value {str(fields[name])[:40]!r} of {prefix}{name}")


def check_rows(rows: np.ndarray, lengths: np.ndarray, shard_images: int, layout: Any, classes: int) -> None:
    """Check that every square and key lies within its file, and every number within its range.

    Args:
        rows: [N] of `Layout.row_type`.
        lengths: lengths of the files in bytes, uint64.
        shard_images: rows in each file.
        layout: a `Layout`.
        classes: number of classes.

    Raises:
        ValueError: a row is invalid; the message gives the first such row and the reason, the caller adds the file.
    """
    for start in range(0, len(rows), AT_A_TIME):
        part = np.asarray(rows[start : start + AT_A_TIME])
        length = lengths[(start + np.arange(len(part))) // shard_images]
        for what, bad in _faults(part, length, len(rows), layout, classes).items():
            if bad.any():
                row = int(bad.reshape(len(part), -1).any(axis=1).argmax())
                raise ValueError(f"row {start + row}: {what}")


def _faults(rows: np.ndarray, length: np.ndarray, count: int, layout: Any, classes: int) -> dict[str, np.ndarray]:
    """Return for each kind of fault a mask of the rows that have it."""
    square, key = rows["square"], rows["key"]
    exists, alpha = square["exists"], rows["alpha"]
    stored = square["bytes"] == 3 * layout.size**2 if layout.mode == "raw" else square["bytes"] > 0
    return {
        "the key lies outside the file": _outside(key, length),
        "a square lies outside the file": exists & _outside(square, length[:, None]),
        "a square has the wrong length": exists & ~stored,
        "the image itself is missing": ~exists[:, 0],
        "an original size is below 1": exists & ((square["height"] < 1) | (square["width"] < 1)),
        "the image index is out of range": _not_within(rows["index"], 0, count - 1),
        "the label is out of range": _not_within(rows["label"], -1, classes - 1),
        "the number of views is out of range": _not_within(rows["views"], 0, layout.views),
        "the number of interpolated views is out of range": _not_within(rows["mixed"], 0, layout.mixed),
        "a partner index is out of range": _not_within(rows["partner"], 0, count - 1),
        "a weight is not between 0 and 1": ~((alpha >= 0) & (alpha <= 1)),
    }


def _outside(blocks: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return place + bytes > length, without computing the sum, which overflows at 2**64."""
    return (blocks["place"] > length) | (blocks["bytes"] > length - np.minimum(blocks["place"], length))


def _not_within(values: np.ndarray, lowest: int, highest: int) -> np.ndarray:
    return (values < lowest) | (values > highest)
