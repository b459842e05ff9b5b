"""Handling of unreadable test images: raise, or skip and record."""

from collections.abc import Callable

OnUnreadable = Callable[[str], object]
"""Called with an error message that names an unreadable image; if it returns, the image is skipped."""


def refuse(line: str) -> None:
    """Raise ValueError with the message."""
    raise ValueError(line)


class LeftOut:
    """Record the message of each skipped image once.

    Args:
        on_new: called with each new message.
    """

    def __init__(self, on_new: OnUnreadable = lambda line: None):
        self.lines: dict[str, None] = {}
        self._on_new = on_new

    def __call__(self, line: str) -> None:
        """Record a skipped image."""
        if line not in self.lines:
            self.lines[line] = None
            self._on_new(line)
