"""Run an app and kill it, as kill -9 does, right after its resume file was written for the Nth time.

python tests/kill_after_checkpoint.py N APP ARGUMENTS...
"""

import os
import runpy
import signal
import sys

from sslzoo.training import state


def main() -> None:
    """Count the checkpoints of the app, and die."""
    left = int(sys.argv[1])
    save = state.save_resume

    def save_and_count(*args, **kwargs):
        nonlocal left
        save(*args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    state.save_resume = save_and_count
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
