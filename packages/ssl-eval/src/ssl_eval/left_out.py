"""Test images that cannot be read: the end of an evaluation, or listed and left out."""

from collections.abc import Callable

OnUnreadable = Callable[[str], object]
"""Called with the line that names an image that cannot be read; where it returns, the image is left out."""


def refuse(line: str) -> None:
    """End the evaluation.

    Raises:
        ValueError: always, with the line.
    """
    raise ValueError(line)


class LeftOut:
    """Keeps the line of each image that was left out, once.

    Args:
        tell: called with each.
    """

    def __init__(self, tell: OnUnreadable = lambda line: None):
        self.lines: dict[str, None] = {}
        self._tell = tell

    def __call__(self, line: str) -> None:
        """Leave one out."""
        if line not in self.lines:
            self.lines[line] = None
            self._tell(line)
