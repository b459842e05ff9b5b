"""Evaluate a backbone: on labelled images, or by the task named first.

    genviews evaluate BACKBONE --train DATA/train --test DATA/test       # kNN, linear, few labels
    genviews evaluate retrieval BACKBONE --data DATA/roxford5k           # revisited Oxford and Paris
    genviews evaluate copy-detection BACKBONE --data DATA/copydays       # copies of images, among distractors
    genviews evaluate video BACKBONE --data DATA/DAVIS                   # video object segmentation
    genviews evaluate slides BACKBONE --data PANDA/tiles --labels PANDA/train.csv    # slides, by their tiles
    genviews evaluate segmentation BACKBONE --data VOCdevkit             # class of every pixel

genviews evaluate TASK --help shows the options of a task; without a task they are those of classification, with
--protocol. Write a folder that is named like a task as ./NAME. `uv run apps/evaluate` is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.evaluation.tasks import TASKS
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
    named = bool(arguments) and arguments[0] in TASKS
    name = arguments.pop(0) if named else "classification"
    task = TASKS[name]
    prog = f"genviews evaluate {name}" if named else None
    options = parse_options(task.options(), arguments, job=f"evaluate {name}", prog=prog)
    task.run(options)
