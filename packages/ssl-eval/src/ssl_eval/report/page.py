"""The page: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_eval.report.facts import Facts
from ssl_eval.report.numbers import measured, number, with_interval
from ssl_eval.report.plots import against, by_recipe
from ssl_eval.report.sections import Column, Section
from ssl_eval.results import Result

if TYPE_CHECKING:
    from ssl_eval.report.write import Source


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing and what it shows."""

    title: str
    protocol: str
    svg: Markup


def render(
    title: str, sections: Sequence[Section], results: Sequence[Result], facts: Facts, sources: Sequence[Source]
) -> str:
    """The page as text.

    Args:
        title: its heading.
        sections: tables and plots, a data set each.
        results: every line behind them.
        facts: what plots are drawn against.
        sources: the files the results were read from.
    """
    environment = Environment(
        loader=PackageLoader("ssl_eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "measured": measured, "with_interval": with_interval}
    folder = files("ssl_eval.report")
    return environment.get_template("page.html.j2").render(
        title=title,
        totals=totals_of(sections, results),
        sections=[(section, plots_of(section, facts)) for section in sections],
        results=results,
        facts=facts,
        sources=sources,
        css=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("page.js").read_text(encoding="utf-8")),
    )


def totals_of(sections: Sequence[Section], results: Sequence[Result]) -> dict[str, int]:
    """What there is, counted."""
    return {
        "recipe": len({recipe for section in sections for recipe in section.rows}),
        "result": len(results),
        "seed": len({result.seed for result in results}),
        "backbone": len({result.backbone for result in results}),
    }


def plots_of(section: Section, facts: Facts) -> list[Plot]:
    """Each measurement against each fact, then by recipe where there are several."""
    drawn = [
        (column, axis, against(section, column, facts, axis)) for column in section.columns for axis in facts.numbers
    ]
    plots = [_plot(column, f"against {axis}", svg) for column, axis, svg in drawn if svg is not None]
    several = [column for column in section.columns if len(section.column(column)) > 1]
    return plots + [_plot(column, "by recipe", by_recipe(section, column)) for column in several]


def _plot(column: Column, shown: str, svg: str) -> Plot:
    return Plot(title=f"{column.task} {column.metric} {shown}", protocol=column.protocol, svg=Markup(svg))
