"""The record of a run: a row per view in journals, folded into one Parquet file, held against the files."""

from viewgen.manifest.fold import fold_journals
from viewgen.manifest.journal import SCHEMA, Journal, Row
from viewgen.manifest.verify import VerifyReport, verify_views

__all__ = ["SCHEMA", "Journal", "Row", "VerifyReport", "fold_journals", "verify_views"]
