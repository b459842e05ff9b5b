"""Histograms of streams of values, laid out for SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Stream = Callable[[], Iterable[np.ndarray]]
"""Function that yields the values in chunks; every call starts from the beginning."""

BINS = 24  # maximum number of bins
MAX_BARS = 12  # maximum number of distinct values that get a bar each
WIDTH, HEIGHT = 360, 150  # SVG user units
LEFT, RIGHT, BOTTOM, TOP = 40, 350, 130, 8  # plot area


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Rectangle of a bar in SVG units, index of its series, and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    series: int
    tooltip: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Histogram of one or several series over the same bins, laid out for SVG.

    Attributes:
        title: name of the counted quantity.
        series: names of the series.
        totals: number of values of each series.
        bars: non-empty bars of all series.
        x_ticks: (x, label) of the ticks.
        y_ticks: (y, label) of the grid lines.
        size: width and height of the SVG.
        plot: left, right and bottom of the plot area.
    """

    title: str
    series: tuple[str, ...]
    totals: tuple[int, ...]
    bars: tuple[Bar, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    plot: tuple[int, int, int] = (LEFT, RIGHT, BOTTOM)


def histogram(title: str, series: Mapping[str, Stream], *, each_value: bool = False) -> Histogram | None:
    """Count streams in two passes, the first of which finds the range; None without finite values.

    Args:
        title: name of the counted quantity.
        series: streams by name.
        each_value: draw a bar for each distinct value if there are at most ``MAX_BARS``.
    """
    low, high, values = math.inf, -math.inf, set[float]()
    for part in (part for stream in series.values() for part in _finite(stream)):
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if len(values) <= MAX_BARS:
            values.update(np.unique(part)[: MAX_BARS + 1].tolist())
    if low > high:
        return None
    if each_value and len(values) <= MAX_BARS:
        distinct = np.array(sorted(values))
        counts = [sum((part[:, None] == distinct).sum(axis=0) for part in _finite(s)) for s in series.values()]
        return _layout(title, tuple(series), np.array(counts), [f"{value:g}" for value in distinct], None)
    edges = round_edges(low, high)
    counts = [sum(np.histogram(part, edges)[0] for part in _finite(stream)) for stream in series.values()]
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges.tolist())]
    return _layout(title, tuple(series), np.array(counts), labels, edges)


def round_edges(low: float, high: float) -> np.ndarray:
    """Return equally spaced round bin edges that enclose low and high, for at most ``BINS`` + 1 bins."""
    step = round_step((high - low or 1.0) / BINS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    edges = np.array([_clean(index * step) for index in range(first, max(last, first + 1) + 1)])
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def round_step(least: float) -> float:
    """Return the smallest of ..., 1, 2, 2.5, 5, 10, ... that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return power * min(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _finite(stream: Stream) -> Iterator[np.ndarray]:
    for part in stream():
        kept = part[np.isfinite(part)]
        if len(kept):
            yield kept


def _layout(
    title: str, names: tuple[str, ...], counts: np.ndarray, labels: list[str], edges: np.ndarray | None
) -> Histogram:
    """Lay out the bars of ``counts`` [series, bins], side by side within a bin."""
    counts = counts.reshape(len(names), len(labels))
    slot = (RIGHT - LEFT) / len(labels)
    space = min(0.15 * slot, 4) if edges is not None else 0.3 * slot
    bar = (slot - space) / len(names)
    most = max(1, int(counts.max()))
    unit = (BOTTOM - TOP) / most  # height of one count
    bars = tuple(
        Bar(
            x=round(LEFT + index * slot + space / 2 + order * bar, 2),
            y=round(BOTTOM - count * unit, 2),
            width=round(bar, 2),
            height=round(count * unit, 2),
            series=order,
            tooltip=f"{name} {labels[index]}: {count:,}" if len(names) > 1 else f"{labels[index]}: {count:,}",
        )
        for order, name in enumerate(names)
        for index, count in enumerate(counts[order].tolist())
        if count
    )
    if edges is None:
        x_ticks = tuple((LEFT + (index + 0.5) * slot, label) for index, label in enumerate(labels))
    else:
        x_ticks = tuple(_ticks(float(edges[0]), float(edges[-1])))
    y_ticks = tuple((round(BOTTOM - level * unit, 2), f"{level:,}") for level in _levels(most))
    totals = tuple(counts.sum(axis=1).tolist())
    return Histogram(title=title, series=names, totals=totals, bars=bars, x_ticks=x_ticks, y_ticks=y_ticks)


def _ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Yield (x, label) of round numbers from low to high."""
    step = round_step((high - low) / 6)
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield LEFT + (RIGHT - LEFT) * (index * step - low) / (high - low), f"{_clean(index * step):g}"


def _clean(value: float) -> float:
    """Remove floating-point noise: 0.30000000000000004 becomes 0.3."""
    return float(f"{value:.12g}")


def _levels(most: int) -> list[int]:
    """Return two or three round counts up to the highest bar."""
    power = 10 ** int(math.log10(most))
    step = next(step for step in (power // 5, power // 2, power, 2 * power, 5 * power) if step and most < 4 * step)
    return list(range(step, most + 1, step))
