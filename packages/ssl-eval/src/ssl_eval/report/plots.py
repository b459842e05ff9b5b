"""Plots of one measurement as SVG that takes its colours and type from the page around it.

Each mark says on its own what it shows when it is pointed at.
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

from ssl_eval.report.facts import Facts
from ssl_eval.report.numbers import number, with_interval
from ssl_eval.report.sections import Cell, Column, Section

INK, SOFT, LINE, SHEET = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
HUES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
"""What stands for the page's colours while a plot is drawn."""
PAGE_COLOURS = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", SHEET: "var(--sheet)"} | {
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
WIDE_SPAN = 30  # from here on an axis is logarithmic
MOST_LABELS = 8  # points named in the plot; the others when pointed at
Tips = dict[str, str]


def by_recipe(section: Section, column: Column) -> str:
    """Every recipe's mean, its interval, and a dot per seed."""
    cells, best = section.column(column), section.best(column)
    with matplotlib.rc_context(_style(f"{section.data} {column.name}")):
        figure = Figure(figsize=(WIDTH, 0.62 + 0.3 * len(cells)), layout="constrained")
        axes, tips = figure.subplots(), Tips()
        for place, (recipe, cell) in enumerate(cells.items()):
            hue = HUES[0] if recipe in best or not best else SOFT
            if len(cell.values) > 1:
                axes.plot(cell.values, [place + 0.25] * len(cell.values), "o", color=hue, ms=2.5, alpha=0.6, mew=0)
            _interval(axes, cell.mean, float(place), cell, hue, tips, f"{recipe}: {with_interval(cell)}", across=True)
        axes.set_yticks(range(len(cells)), [_short(recipe) for recipe in cells])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        if not _logarithmic(axes, [cell.mean for cell in cells.values()]):
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.06)
        return _svg(figure, tips, f"{column.name} by recipe")


def against(section: Section, column: Column, facts: Facts, axis: str) -> str | None:
    """Every recipe's mean and interval against a fact, those of a series joined; None if fewer than two have it."""
    known = facts.numbers[axis]
    cells = {recipe: cell for recipe, cell in section.column(column).items() if recipe in known}
    if len(cells) < 2:
        return None
    series: dict[str, list[str]] = {}
    for recipe in sorted(cells, key=known.__getitem__):
        series.setdefault(facts.series.get(recipe, ""), []).append(recipe)
    with matplotlib.rc_context(_style(f"{section.data} {column.name} {axis}")):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes, tips = figure.subplots(), Tips()
        hues = _hues(section, facts)
        for name, recipes in series.items():
            hue = hues[name]
            places = [known[recipe] for recipe in recipes]
            if name:
                axes.plot(places, [cells[recipe].mean for recipe in recipes], color=hue, lw=1.5)
            for recipe, place in zip(recipes, places, strict=True):
                says = f"{recipe}: {with_interval(cells[recipe])}, {axis} {number(place)}"
                _interval(axes, place, cells[recipe].mean, cells[recipe], hue, tips, says, across=False)
        _name_points(axes, series, cells, known)
        _scale(axes, [known[recipe] for recipe in cells])
        axes.set_xlabel(axis)
        axes.grid(axis="y")
        axes.margins(x=0.12, y=0.12)
        return _svg(figure, tips, f"{column.name} against {axis}")


def _style(salt: str) -> dict[Any, Any]:
    """With what tells this plot's marks from those of others on the page."""
    return {**STYLE, "svg.hashsalt": salt}


def _interval(axes: Axes, x: float, y: float, cell: Cell, hue: str, tips: Tips, says: str, *, across: bool) -> None:
    """A mean with its interval, on a ground that keeps it apart from what lies below."""
    xerr, yerr = (cell.half_width, None) if across else (None, cell.half_width)
    drawn = axes.errorbar(x, y, yerr, xerr, fmt="o", color=hue, ms=6, mec=SHEET, mew=1.2, elinewidth=1.6, zorder=3)
    tip = f"tip-{len(tips)}"
    drawn.lines[0].set_gid(tip)
    tips[tip] = says


def _name_points(
    axes: Axes, series: Mapping[str, Sequence[str]], cells: Mapping[str, Cell], known: Mapping[str, float]
) -> None:
    """Names beside the last point of each series, and beside every point of none, where they are few."""
    named = [(name, recipes[-1]) for name, recipes in series.items() if name]
    named += [(recipe, recipe) for recipe in series.get("", ())]
    if len(named) > MOST_LABELS:
        return
    for text, recipe in named:
        place = (known[recipe], cells[recipe].mean)
        axes.annotate(_short(text), place, xytext=(7, 6), textcoords="offset points", color=INK, fontsize=9)


def _hues(section: Section, facts: Facts) -> dict[str, str]:
    """A colour per series, the same in all plots of a section; the last one for what belongs to none."""
    names = [name for name in dict.fromkeys(facts.series.get(recipe, "") for recipe in section.rows) if name]
    own = {name: HUES[place % (len(HUES) - 1)] for place, name in enumerate(names)}
    return own | {"": HUES[-1] if own else HUES[0]}


def _scale(axes: Axes, places: Sequence[float]) -> None:
    whole = sorted({place for place in places if place == int(place)})
    if not _logarithmic(axes, places) and len(whole) == len(set(places)) <= 8:
        axes.set_xticks(whole, [number(place) for place in whole])


def _logarithmic(axes: Axes, places: Sequence[float]) -> bool:
    """Whether the places span so much that the axis was made logarithmic."""
    wide = min(places) > 0 and max(places) / min(places) >= WIDE_SPAN
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return wide


def _short(text: str) -> str:
    return text if len(text) <= 28 else f"{text[:26]}…"


def _svg(figure: Figure, tips: Tips, label: str) -> str:
    """The drawing as an element of a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index("</defs>") + len("</defs>") : text.rindex("</svg>")]  # without its date, and its style
    for tip, says in tips.items():
        body = body.replace(f'<g id="{tip}">', f"<g><title>{escape(says)}</title>", 1)
    body = re.sub(r'<g id="[^"]*"/>', "", body)
    body = re.sub(r'<g id="([^"]*?)_\d+">', r'<g class="\1">', body)  # a page has many plots, and an id only once
    body = re.sub(r" font-family: [^;]*;", "", body)
    for colour, shown in PAGE_COLOURS.items():
        body = body.replace(colour, shown)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body}</svg>'
