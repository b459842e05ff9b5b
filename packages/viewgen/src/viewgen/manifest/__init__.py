"""The manifest of a run: one row per view in journals, merged into one Parquet file and verified against the files."""

from viewgen.manifest.journal import Journal
from viewgen.manifest.merge import merge_journals
from viewgen.manifest.shard_store import ShardStore, holds_shards, verify_shards
from viewgen.manifest.table import SCHEMA, Manifest, Row, open_manifest, view_path
from viewgen.manifest.verify import VerifyReport, verify_views

__all__ = [
    "SCHEMA",
    "Journal",
    "Manifest",
    "Row",
    "ShardStore",
    "VerifyReport",
    "holds_shards",
    "merge_journals",
    "open_manifest",
    "verify_shards",
    "verify_views",
    "view_path",
]
