"""A hard limit of minutes, and shares of what is left of it."""

from __future__ import annotations

import time


class Budget:
    """Counts from its making.

    Args:
        minutes: in all.
        reserve: seconds kept back at the end, for what must still be written.
    """

    def __init__(self, minutes: float, *, reserve: float = 0.0) -> None:
        self.seconds, self.reserve, self._began = 60 * minutes, reserve, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the end, the reserve taken off; never below 0."""
        return max(0.0, self.seconds - self.reserve - self.spent)

    def share(self, part: float) -> float:
        """Seconds of a share of the whole, as far as they are left."""
        return min(part * self.seconds, self.left)
