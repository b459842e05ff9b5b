"""Pack images and their views into records that load many times faster than folders.

    genviews pack IMAGES --out RECORDS [--views VIEWS] [--interpolated MIXED]
    genviews pack IMAGES --out RECORDS --mode raw --size 32     # lossless, the pixels of folders; for small images
    genviews pack IMAGES --out RECORDS --verify                 # read all files back and repack damaged ones

An interrupted command continues when it is called again. `uv run apps/pack` is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.packing import PackOptions, run
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; unreadable images end in exit code 3."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(PackOptions, given, job="pack", description=__doc__)
    packed = run(options)
    size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
    verified = ", verified" if options.verify else ""
    print(f"{options.out}: {packed.images} images, {packed.views} views, {size:.1f} MB{verified}")
    if packed.failures:
        unread = f"{packed.failures} files could not be read and were replaced by the next readable image"
        print(f"{unread}: see {options.out / 'failures.jsonl'}", file=sys.stderr)
        sys.exit(3)
