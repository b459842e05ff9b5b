"""A run: generate a folder of views from a folder of images, on any number of devices and machines."""

from viewgen.run.generate import RunSummary, generate_views

__all__ = ["RunSummary", "generate_views"]
