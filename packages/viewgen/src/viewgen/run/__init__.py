"""A run: from a folder of images to a folder of views, on whatever machines there are."""

from viewgen.run.generate import RunSummary, generate_views

__all__ = ["RunSummary", "generate_views"]
