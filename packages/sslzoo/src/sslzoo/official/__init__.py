"""The checkpoints of the official repositories, opened without running anything in them."""

from sslzoo.official.layout import Layout
from sslzoo.official.layouts import LAYOUTS, NAMED
from sslzoo.official.opening import open_official

__all__ = ["LAYOUTS", "NAMED", "Layout", "open_official"]
