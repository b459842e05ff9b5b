"""Reports of results, and the base of all HTML pages."""

from ssl_eval.report.html import render_page
from ssl_eval.report.write import write_report

__all__ = ["render_page", "write_report"]
