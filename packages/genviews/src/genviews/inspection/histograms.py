"""Histograms of streams of any length, and where their bars stand in a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Stream = Callable[[], Iterable[np.ndarray]]
"""Gives the values in parts, from the start at each call."""

BINS = 24  # of a round width
MOST_BARS = 12  # of a histogram with a bar for each value
WIDTH, HEIGHT = 360, 150  # of the picture, in its own units
LEFT, RIGHT, BOTTOM, TOP = 40, 350, 130, 8  # of the plot in it


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: its rectangle in the picture, and what it says."""

    x: float
    y: float
    width: float
    height: float
    series: int
    says: str


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A picture of one or several distributions over the same bins.

    Attributes:
        title: what is counted.
        series: their names.
        totals: values of each.
        bars: of all series; each series' highest bin has a share no bar exceeds.
        across: (x, label) of the ticks below.
        up: (y, label) of the lines across.
        size: width and height of the picture.
        plot: left, right and bottom of the plot in it.
    """

    title: str
    series: tuple[str, ...]
    totals: tuple[int, ...]
    bars: tuple[Bar, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    plot: tuple[int, int, int] = (LEFT, RIGHT, BOTTOM)


def histogram(title: str, series: Mapping[str, Stream], *, each_value: bool = False) -> Histogram | None:
    """Count streams in two passes, the first for their range; None if they hold no finite value.

    Args:
        title: what is counted.
        series: streams by name.
        each_value: a bar for each value instead of bins where there are at most ``MOST_BARS``.
    """
    low, high, values = math.inf, -math.inf, set[float]()
    for part in (part for stream in series.values() for part in _finite(stream)):
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if len(values) <= MOST_BARS:
            values.update(np.unique(part)[: MOST_BARS + 1].tolist())
    if low > high:
        return None
    if each_value and len(values) <= MOST_BARS:
        found = np.array(sorted(values))
        counts = [sum((part[:, None] == found).sum(axis=0) for part in _finite(s)) for s in series.values()]
        return _drawn(title, tuple(series), np.array(counts), [f"{value:g}" for value in found], None)
    edges = round_edges(low, high)
    counts = [sum(np.histogram(part, edges)[0] for part in _finite(stream)) for stream in series.values()]
    return _drawn(title, tuple(series), np.array(counts), [f"{a:g} to {b:g}" for a, b in _between(edges)], edges)


def round_edges(low: float, high: float) -> np.ndarray:
    """Equally spaced round numbers that hold low and high between them, for at most ``BINS`` + 1 bins."""
    step = round_step((high - low or 1.0) / BINS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    edges = np.array([_clean(place * step) for place in range(first, max(last, first + 1) + 1)])
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def round_step(least: float) -> float:
    """The next of ... 1, 2, 2.5, 5, 10 ..."""
    power = 10.0 ** math.floor(math.log10(least))
    return power * min(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _finite(stream: Stream) -> Iterator[np.ndarray]:
    for part in stream():
        kept = part[np.isfinite(part)]
        if len(kept):
            yield kept


def _between(edges: np.ndarray) -> Iterator[tuple[float, float]]:
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _drawn(
    title: str, names: tuple[str, ...], counts: np.ndarray, labels: list[str], edges: np.ndarray | None
) -> Histogram:
    """Lay out the bars of ``counts`` [series, bins], side by side within a bin."""
    counts = counts.reshape(len(names), len(labels))
    slot = (RIGHT - LEFT) / len(labels)
    space = min(0.15 * slot, 4) if edges is not None else 0.3 * slot
    bar = (slot - space) / len(names)
    most = max(1, int(counts.max()))
    tall = (BOTTOM - TOP) / most
    bars = tuple(
        Bar(
            x=round(LEFT + place * slot + space / 2 + order * bar, 2),
            y=round(BOTTOM - count * tall, 2),
            width=round(bar, 2),
            height=round(count * tall, 2),
            series=order,
            says=f"{name} {labels[place]}: {count:,}" if len(names) > 1 else f"{labels[place]}: {count:,}",
        )
        for order, name in enumerate(names)
        for place, count in enumerate(counts[order].tolist())
        if count
    )
    if edges is None:
        across = tuple((LEFT + (place + 0.5) * slot, label) for place, label in enumerate(labels))
    else:
        across = tuple(_ticks(float(edges[0]), float(edges[-1])))
    up = tuple((round(BOTTOM - level * tall, 2), f"{level:,}") for level in _levels(most))
    totals = tuple(counts.sum(axis=1).tolist())
    return Histogram(title=title, series=names, totals=totals, bars=bars, across=across, up=up)


def _ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Round numbers from low to high, where they stand."""
    step = round_step((high - low) / 6)
    for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield LEFT + (RIGHT - LEFT) * (place * step - low) / (high - low), f"{_clean(place * step):g}"


def _clean(value: float) -> float:
    """0.3 for 0.30000000000000004."""
    return float(f"{value:.12g}")


def _levels(most: int) -> list[int]:
    """Two or three round counts up to the highest bar."""
    power = 10 ** int(math.log10(most))
    step = next(step for step in (power // 5, power // 2, power, 2 * power, 5 * power) if step and most < 4 * step)
    return list(range(step, most + 1, step))
