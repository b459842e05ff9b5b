"""Plots of one measurement as SVG that inherits colors and fonts from the surrounding page.

Each mark has a tooltip that describes it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ssl_eval.report.metadata import RecipeMetadata, format_interval, format_number
from ssl_eval.table import Cell, Column, Section

INK, SOFT, LINE, SHEET = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
HUES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
"""Placeholders for the page's colors during plotting."""
PAGE_COLORS = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", SHEET: "var(--sheet)"} | {
    hue: f"var(--hue-{place})" for place, hue in enumerate(HUES)
}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "lines.solid_capstyle": "round",
}
WIDTH = 4.4  # inches; the page scales it
LOG_RATIO = 30  # maximum / minimum from which an axis is logarithmic
MAX_LABELS = 8  # with more points, names are only in tooltooltips
Tooltips = dict[str, str]


def by_recipe(section: Section, column: Column) -> str:
    """Plot each recipe's mean with its confidence interval, and a dot per seed."""
    cells, best = section.column(column), section.best(column)
    with matplotlib.rc_context(_style(f"{section.data} {column.name}")):
        figure = Figure(figsize=(WIDTH, 0.62 + 0.3 * len(cells)), layout="constrained")
        axes, tooltips = figure.subplots(), Tooltips()
        for place, (recipe, cell) in enumerate(cells.items()):
            hue = HUES[0] if recipe in best or not best else SOFT
            if len(cell.values) > 1:
                axes.plot(cell.values, [place + 0.25] * len(cell.values), "o", color=hue, ms=2.5, alpha=0.6, mew=0)
            _interval(
                axes, cell.mean, float(place), cell, hue, tooltips, f"{recipe}: {format_interval(cell)}", across=True
            )
        axes.set_yticks(range(len(cells)), [_short(recipe) for recipe in cells])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        if not _logarithmic(axes, [cell.mean for cell in cells.values()]):
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.06)
        return _svg(figure, tooltips, f"{column.name} by recipe")


def against(section: Section, column: Column, metadata: RecipeMetadata, axis: str) -> str | None:
    """Plot means and intervals against a metadata column, with a line per series; None for fewer than two points."""
    known = metadata.values[axis]
    cells = {recipe: cell for recipe, cell in section.column(column).items() if recipe in known}
    if len(cells) < 2:
        return None
    series: dict[str, list[str]] = {}
    for recipe in sorted(cells, key=known.__getitem__):
        series.setdefault(metadata.series.get(recipe, ""), []).append(recipe)
    with matplotlib.rc_context(_style(f"{section.data} {column.name} {axis}")):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes, tooltips = figure.subplots(), Tooltips()
        hues = _hues(section, metadata)
        for name, recipes in series.items():
            hue = hues[name]
            places = [known[recipe] for recipe in recipes]
            if name:
                axes.plot(places, [cells[recipe].mean for recipe in recipes], color=hue, lw=1.5)
            for recipe, place in zip(recipes, places, strict=True):
                tooltip = f"{recipe}: {format_interval(cells[recipe])}, {axis} {format_number(place)}"
                _interval(axes, place, cells[recipe].mean, cells[recipe], hue, tooltips, tooltip, across=False)
        _name_points(axes, series, cells, known)
        _scale(axes, [known[recipe] for recipe in cells])
        axes.set_xlabel(axis)
        axes.grid(axis="y")
        axes.margins(x=0.12, y=0.12)
        return _svg(figure, tooltips, f"{column.name} against {axis}")


def _style(salt: str) -> dict[Any, Any]:
    """Return the style, with a salt that makes the ids of this plot unique on the page."""
    return {**STYLE, "svg.hashsalt": salt}


def _interval(
    axes: Axes, x: float, y: float, cell: Cell, hue: str, tooltips: Tooltips, tooltip: str, *, across: bool
) -> None:
    """Draw a mean with its interval, with an outline that separates it from marks below."""
    xerr, yerr = (cell.half_width, None) if across else (None, cell.half_width)
    drawn = axes.errorbar(x, y, yerr, xerr, fmt="o", color=hue, ms=6, mec=SHEET, mew=1.2, elinewidth=1.6, zorder=3)
    tip = f"tip-{len(tooltips)}"
    drawn.lines[0].set_gid(tip)
    tooltips[tip] = tooltip


def _name_points(
    axes: Axes, series: Mapping[str, Sequence[str]], cells: Mapping[str, Cell], known: Mapping[str, float]
) -> None:
    """Label the last point of each series, and every point without a series, unless there are too many."""
    named = [(name, recipes[-1]) for name, recipes in series.items() if name]
    named += [(recipe, recipe) for recipe in series.get("", ())]
    if len(named) > MAX_LABELS:
        return
    for text, recipe in named:
        place = (known[recipe], cells[recipe].mean)
        axes.annotate(_short(text), place, xytext=(7, 6), textcoords="offset points", color=INK, fontsize=9)


def _hues(section: Section, metadata: RecipeMetadata) -> dict[str, str]:
    """Return a color per series, the same in all plots of a section; the last one for points without a series."""
    names = [name for name in dict.fromkeys(metadata.series.get(recipe, "") for recipe in section.rows) if name]
    own = {name: HUES[place % (len(HUES) - 1)] for place, name in enumerate(names)}
    return own | {"": HUES[-1] if own else HUES[0]}


def _scale(axes: Axes, places: Sequence[float]) -> None:
    whole = sorted({place for place in places if place == int(place)})
    if not _logarithmic(axes, places) and len(whole) == len(set(places)) <= 8:
        axes.set_xticks(whole, [format_number(place) for place in whole])


def _logarithmic(axes: Axes, places: Sequence[float]) -> bool:
    """Make the axis logarithmic if the values span a wide range, and return whether they do."""
    wide = min(places) > 0 and max(places) / min(places) >= LOG_RATIO
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return wide


def _short(text: str) -> str:
    return text if len(text) <= 28 else f"{text[:26]}…"


def _svg(figure: Figure, tooltips: Tooltips, label: str) -> str:
    """The rng_scope as an element of a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index("</defs>") + len("</defs>") : text.rindex("</svg>")]  # without date and style
    for tip, tooltip in tooltips.items():
        body = body.replace(f'<g id="{tip}">', f"<g><title>{escape(tooltip)}</title>", 1)
    body = re.sub(r'<g id="[^"]*"/>', "", body)
    body = re.sub(r'<g id="([^"]*?)_\d+">', r'<g class="\1">', body)  # ids must be unique in a page
    body = re.sub(r" font-family: [^;]*;", "", body)
    for color, shown in PAGE_COLORS.items():
        body = body.replace(color, shown)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'
