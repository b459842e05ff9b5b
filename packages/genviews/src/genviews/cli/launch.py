"""Start a program on several processes like torchrun, and end with the program's own error message.

    genviews launch --standalone --nproc_per_node 8 -m genviews pretrain imagenet-dino --data imagenet/train

The options are those of torchrun (`torchrun --help`). After an error in a process, torchrun prints a report of
about 30 lines. Here the program's own error message stays the last line; for a process killed by a signal, rank and
signal are printed. `uv run apps/launch` is the same command.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run torchrun's launcher, and exit with the code of the process that failed first."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    options = parse_args(arguments)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # killed by a signal, so it printed no message
            name = signal.Signals(-failure.exitcode).name
            print(f"error: process {rank} was ended by {name}", file=sys.stderr)
            sys.exit(128 - failure.exitcode)
        sys.exit(failure.exitcode)
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
