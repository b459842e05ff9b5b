"""Student's t, for intervals of a mean over few seeds."""

import math
from collections.abc import Sequence
from statistics import stdev


def half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """How far the interval of the mean reaches to each side, t s / sqrt(n); None for fewer than two values."""
    if len(values) < 2:
        return None
    return student_t(len(values) - 1, confidence) * stdev(values) / math.sqrt(len(values))


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t that |T| stays below with this probability, by bisection over its angle.

    Args:
        freedom: degrees of freedom, at least 1.
        confidence: between 0 and 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
