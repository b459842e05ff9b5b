"""Run every job: encoders, a diffusion model, views, encoders that learn from them, and a table of accuracies.

genviews quickstart                                # on procedural scenes
genviews quickstart --data TRAIN --test TEST       # on your own images
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.end_to_end.options import QuickstartOptions
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(QuickstartOptions, given, job="quickstart", description=__doc__)
    from genviews.end_to_end.run import run

    run(options)
