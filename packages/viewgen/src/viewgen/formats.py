"""File formats of views. This module does not import torch."""

RGB = 3


def default_format(channels: int) -> str:
    """Return the format of views of this many channels: "png" for gray and RGB, otherwise "tif"."""
    return "png" if channels in (1, RGB) else "tif"
