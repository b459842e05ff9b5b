"""The objects of the procedural scenes: ten classes told apart by outline and parts alone.

A shape is a list of parts, painted in turn: (points, paint), the points in [-1, 1] x [-1, 1] with y down, the paint
BODY, ACCENT, or HOLE, which cuts through to the background.
"""

from collections.abc import Callable

import numpy as np

BODY, ACCENT, HOLE = 0, 1, 2
Shape = list[tuple[np.ndarray, int]]


def _polygon(*points: tuple[int | float, int | float]) -> np.ndarray:
    return np.array(points, float)


def _ellipse(x: float, y: float, width: float, height: float, begin: int = 0, end: int = 360) -> np.ndarray:
    """The rim of an ellipse with the given half axes, from `begin` to `end` degrees, clockwise as seen."""
    angle = np.radians(np.linspace(begin, end, 32))
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def _arrow() -> Shape:
    return [(_polygon((-1, -0.24), (0.1, -0.24), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.24), (-1, 0.24)), BODY)]


def _crescent() -> Shape:
    return [(_ellipse(0.0, 0.0, 0.95, 0.95), BODY), (_ellipse(0.45, -0.1, 0.75, 0.75), HOLE)]


def _cross() -> Shape:
    return [
        (_polygon((-0.3, -0.95), (0.3, -0.95), (0.3, 0.95), (-0.3, 0.95)), BODY),
        (_polygon((-0.95, -0.3), (0.95, -0.3), (0.95, 0.3), (-0.95, 0.3)), BODY),
    ]


def _fish() -> Shape:
    return [
        (_polygon((0.35, 0), (1, -0.65), (0.85, 0), (1, 0.65)), ACCENT),
        (_polygon((-0.3, -0.4), (0.3, -0.85), (0.35, -0.3)), ACCENT),
        (_ellipse(-0.2, 0.0, 0.78, 0.5), BODY),
        (_ellipse(-0.6, -0.12, 0.13, 0.13), HOLE),
    ]


def _flower() -> Shape:
    angles = np.radians(np.arange(5) * 72 - 90)
    petals: Shape = [(_ellipse(0.58 * np.cos(a), 0.58 * np.sin(a), 0.36, 0.36), BODY) for a in angles]
    return [*petals, (_ellipse(0.0, 0.0, 0.36, 0.36), ACCENT)]


def _heart() -> Shape:
    turn = np.linspace(0, 2 * np.pi, 40)
    x = np.sin(turn) ** 3
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
    return [(np.stack([x, y], 1), BODY)]


def _house() -> Shape:
    return [
        (_polygon((-0.68, -0.1), (0.68, -0.1), (0.68, 0.9), (-0.68, 0.9)), BODY),
        (_polygon((-0.98, -0.08), (0, -0.95), (0.98, -0.08)), ACCENT),
        (_polygon((-0.22, 0.3), (0.22, 0.3), (0.22, 0.9), (-0.22, 0.9)), HOLE),
    ]


def _mushroom() -> Shape:
    return [
        (_polygon((-0.25, 0), (0.25, 0), (0.36, 0.92), (-0.36, 0.92)), ACCENT),
        (_ellipse(0.0, 0.12, 0.98, 0.98, 180, 360), BODY),
    ]


def _ring() -> Shape:
    return [(_ellipse(0.0, 0.0, 0.95, 0.95), BODY), (_ellipse(0.0, 0.0, 0.5, 0.5), HOLE)]


def _star() -> Shape:
    angle = np.radians(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), BODY)]


SHAPES: dict[str, Callable[[], Shape]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "fish": _fish,
    "flower": _flower,
    "heart": _heart,
    "house": _house,
    "mushroom": _mushroom,
    "ring": _ring,
    "star": _star,
}
