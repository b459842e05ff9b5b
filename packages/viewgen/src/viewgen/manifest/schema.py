"""The columns and rows of a manifest."""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_hash", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("strength", pa.float64()),
        pa.field("foreground_ratio", pa.float64()),
        pa.field("partner_key", pa.string()),
        pa.field("alpha", pa.float64()),
        pa.field("supervision", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
PATHS = ("key", "path", "partner_key")  # columns that name files, each inside its folder


@dataclass(frozen=True, kw_only=True)
class Row:
    """One view. ``seed`` is the view's own; ``path`` is relative to the views' root; see ``SCHEMA`` for the types."""

    key: str
    k: int
    path: str
    generator: str
    model: str
    model_hash: str
    seed: int
    strength: float | None
    foreground_ratio: float | None
    partner_key: str | None
    alpha: float | None
    supervision: str
    licence: str
    width: int
    height: int
    sha256: str
