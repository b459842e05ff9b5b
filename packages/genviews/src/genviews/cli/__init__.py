"""The command `genviews`: one subcommand per job.

genviews quickstart                                   # every job in a row, on procedural scenes, on any machine
genviews pretrain RECIPE --data DIR [--views DIR]     # train an encoder; genviews pretrain --list shows the recipes
genviews train-generator IMAGES --encoder ENCODER --out DIR
genviews generate IMAGES --out VIEWS --model DIR      # generate views
genviews pack IMAGES --out RECORDS [--views VIEWS]    # pack images and views into records
genviews evaluate [TASK] BACKBONE ...                 # kNN, linear, few labels, retrieval, ...
genviews embed IMAGES --backbone BACKBONE --out F     # one vector per image in F, and a map of them
genviews inspect IMAGES VIEWS --out report.html       # show pairs and scores in one HTML page
genviews completion bash|zsh                          # a script for the shell: Tab completes all of these
genviews launch --nproc_per_node 8 -m genviews JOB ...

JOB --help shows the options of a job.
"""

from __future__ import annotations

import sys
from importlib import import_module

from genviews.suggestions import suggest

JOBS = (
    "pretrain",
    "quickstart",
    "train-generator",
    "generate",
    "pack",
    "evaluate",
    "embed",
    "inspect",
    "completion",
    "launch",
)
"""Names of the jobs; `main(arguments)` of genviews.cli.JOB runs the command line of one."""


def main() -> None:
    """Run the job named by the first argument."""
    job, *arguments = sys.argv[1:] or ["--help"]
    if job in ("-h", "--help"):
        print(__doc__)
        return
    if job not in JOBS:
        hint = suggest(job, JOBS, otherwise="see genviews --help")
        sys.exit(f"error: expected a job, got {job!r}; {hint}")
    import_module(f"genviews.cli.{job.replace('-', '_')}").main(arguments)
