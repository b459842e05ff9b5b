"""Show pairs with their foreground maps, scores and statistics in one HTML file.

    genviews inspect IMAGES VIEWS --pca FILE --encoder NAME --out report.html
    genviews inspect IMAGES VIEWS                                   # images and statistics only, without a model

The page is self-contained, without external scripts or images, and can be sent by email.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.inspection.options import InspectOptions
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(InspectOptions, given, job="inspect", description=__doc__)
    from genviews.inspection.run import run

    print(run(options))
