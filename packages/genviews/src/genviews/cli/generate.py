r"""Generate views of a folder of images.

    genviews generate IMAGES --out VIEWS --model runs/eldm                     # generative views
    genviews generate IMAGES --out MIXED --model runs/eldm --interpolate       # half this image, half another
    genviews generate IMAGES --out NEAR --model runs/eldm --from-image --strength 0.6
    genviews generate IMAGES --out VIEWS --generator unclip --model FOLDER --strength adaptive \
        --foreground open_clip/ViT-H-14:laion2b_s32b_b79k                      # the whole of GenView
    genviews generate IMAGES --out VIEWS --generator ip-adapter --model sdxl-turbo --strength random
    genviews launch --standalone --nproc_per_node 8 -m genviews generate IMAGES --out VIEWS --model runs/eldm

`uv run apps/generate` is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.generation import GenerateOptions, run
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; failed images end in exit code 3."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(GenerateOptions, given, job="generate", description=__doc__)
    summary = run(options)
    if summary.failed:
        print(f"{summary.failed} views could not be generated: see {options.out / 'failures.jsonl'}", file=sys.stderr)
        sys.exit(3)
