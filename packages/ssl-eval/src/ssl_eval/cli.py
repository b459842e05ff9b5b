"""The command ``ssl-eval``.

ssl-eval report RESULTS.jsonl --out runs/report
ssl-eval report RESULTS.jsonl MORE.jsonl --out runs/report --metadata metadata.csv --title "Views on CIFAR-10"
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and run the command; a user's mistake ends in one line."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        written = options.run(options)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    for path in written:
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-eval", description="Evaluate encoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="write tables and plots of results",
        description="Write report.html, report.md and report.csv from files of results.",
    )
    report.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="files of results, JSON lines")
    report.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="output folder, created if missing")
    report.add_argument(
        "--metadata",
        type=Path,
        metavar="CSV",
        help="columns recipe, series (optional), and numeric columns for the x axes of plots",
    )
    report.add_argument("--title", default="Results", help="title of the report")
    report.set_defaults(run=_report)
    return parser


def _report(options: argparse.Namespace) -> list[Path]:
    try:
        from ssl_eval.report import write_report
    except ModuleNotFoundError as error:
        raise ValueError(
            f"expected {error.name} for reports, which is not installed; pip install jinja2 matplotlib"
        ) from error
    return write_report(options.results, options.out, metadata=options.metadata, title=options.title)


if __name__ == "__main__":
    main()
