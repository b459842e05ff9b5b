"""Reports of results: Markdown, CSV and one HTML page that needs nothing beside it."""

from ssl_eval.report.write import write_report

__all__ = ["write_report"]
