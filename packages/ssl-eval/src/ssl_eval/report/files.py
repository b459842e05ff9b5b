"""The same results as files for people and programs: Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ssl_eval.escape import escape_csv, escape_markdown
from ssl_eval.report.sections import Section
from ssl_eval.results import Result
from ssl_eval.table import tabulate

COLUMNS = (
    *("recipe", "data", "task", "metric", "protocol", "mean", "deviation", "seeds"),
    *("low", "high", "backbones", "machines"),
)


def as_markdown(title: str, results: Sequence[Result]) -> str:
    """The table, and what it says."""
    machines = "\n".join(
        f"- {escape_markdown(machine)}" for machine in dict.fromkeys(result.machine for result in results)
    )
    told = "Mean ± sample standard deviation (number of seeds); without either, one seed."
    return f"# {escape_markdown(title)}\n\n{tabulate(results).markdown()}\n\n{told}\n\nMeasured on:\n\n{machines}\n"


def as_csv(sections: Sequence[Section]) -> str:
    """Return a row per cell; low and high are the bounds of the 95% confidence interval of the mean.

    Text is escaped by `escape_csv`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in sections:
        for recipe, cells in section.rows.items():
            for column, cell in cells.items():
                reach = cell.half_width
                ends = ("", "") if reach is None else (cell.mean - reach, cell.mean + reach)
                deviation = "" if cell.deviation is None else cell.deviation
                told = [" ".join(dict.fromkeys(each.backbone for each in cell.results))]
                told += ["; ".join(dict.fromkeys(each.machine for each in cell.results))]
                seeds = " ".join(str(each.seed) for each in cell.results)
                names = (recipe, section.data, column.task, column.metric, column.protocol)
                line = (*names, cell.mean, deviation, seeds, *ends, *told)
                writer.writerow([escape_csv(each) if isinstance(each, str) else each for each in line])
    return text.getvalue()
