"""The manifest of a run: one row per view in journals, merged into one Parquet file and verified against the files."""

from viewgen.manifest.fold import fold_journals
from viewgen.manifest.journal import Journal
from viewgen.manifest.schema import SCHEMA, Row
from viewgen.manifest.table import Manifest, open_manifest, view_path
from viewgen.manifest.verify import VerifyReport, verify_views

__all__ = [
    "SCHEMA",
    "Journal",
    "Manifest",
    "Row",
    "VerifyReport",
    "fold_journals",
    "open_manifest",
    "verify_views",
    "view_path",
]
