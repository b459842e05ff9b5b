"""Start a program as several processes, as torchrun does it, and end with what the program has said.

    uv run apps/launch --standalone --nproc_per_node 8 apps/pretrain imagenet-dino --data imagenet/train

The options are torchrun's, listed below by --help. Where a process ends with an error, torchrun adds a report of some
thirty lines; here the program's own line stays the last, and a process that died without one is named.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run torchrun's own launcher; the exit code is that of the process that failed first."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
    options = parse_args(arguments)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # it had no last word
            name = signal.Signals(-failure.exitcode).name
            print(f"error: process {rank} was ended by {name}", file=sys.stderr)
            sys.exit(128 - failure.exitcode)
        sys.exit(failure.exitcode)
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)


if __name__ == "__main__":
    main()
