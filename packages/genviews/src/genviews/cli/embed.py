"""Embed images with a backbone: one vector per image, in one file, and a map to look at.

    genviews embed IMAGES --backbone runs/simsiam/backbone --out features.parquet
    genviews embed IMAGES --backbone timm/resnet50.a1_in1k --out features.npy      # and features.keys.txt
    genviews embed IMAGES --backbone runs/simsiam/backbone --map map.html          # t-SNE, thumbnails on hover

A stopped command continues when it is called again. `uv run apps/embed` is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.embedding.options import EmbedOptions
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; unreadable images end in exit code 3."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(EmbedOptions, given, job="embed", description=__doc__)
    from genviews.embedding.run import run

    embeddings = run(options)
    print(f"{options.out}: {len(embeddings)} vectors of {embeddings.dim} numbers")
    failures = embeddings.folder / "failures.jsonl"
    if failures.stat().st_size:
        print(f"some images could not be read: see {failures}", file=sys.stderr)
        sys.exit(3)
