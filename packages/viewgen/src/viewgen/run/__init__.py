"""A run: generate a folder of views from a folder of images, on any number of devices and machines."""

from viewgen.run.estimate import RunEstimate, estimate_run
from viewgen.run.generate import RunSummary, generate_views
from viewgen.run.view_shards import generate_shards

__all__ = ["RunEstimate", "RunSummary", "estimate_run", "generate_shards", "generate_views"]
