"""A time budget with a hard limit."""

from __future__ import annotations

import time


class Budget:
    """A time budget that starts when it is created.

    Args:
        minutes: total.
        reserve: seconds reserved at the end for writing results.
    """

    def __init__(self, minutes: float, *, reserve: float = 0.0) -> None:
        self.seconds, self.reserve, self._began = 60 * minutes, reserve, time.monotonic()

    @property
    def spent(self) -> float:
        """Elapsed seconds."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Remaining seconds without the reserve, at least 0."""
        return max(0.0, self.seconds - self.reserve - self.spent)

    def share(self, part: float) -> float:
        """Return a fraction of the whole budget in seconds, at most what remains."""
        return min(part * self.seconds, self.left)
