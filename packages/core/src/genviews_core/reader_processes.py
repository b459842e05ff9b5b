"""Start of the processes that read images, for all libraries.

They are forked on Linux, so that they share the index and the cache of decoded images, and start in milliseconds.
Python warns from 3.12 on that a fork of a process with threads may deadlock: a lock that another thread holds at that
moment stays locked in the child. What runs in these processes needs no lock that a thread of this project may hold:

- they read files and compute with Pillow and NumPy; the C library makes its allocator safe across a fork;
- `DataLoader` gives each one torch thread, so that none waits for the OpenMP threads of its parent, which it lacks;
- they import at most Pillow's plugins, which no thread imports, and print at most one warning;
- the main thread forks while the engine of autograd and the writers of logs wait.

Code that runs in them must keep to this. `packages/core/tests/test_reader_processes.py` forks fifty of them beside
threads that allocate, compute, log and import. Where fork is unsafe or absent, the platform's own way is used.
"""

from __future__ import annotations

import sys


def start_method(workers: int = 1) -> str | None:
    """Return the `multiprocessing_context` of a DataLoader with this number of workers; None for the platform's own."""
    return "fork" if workers and sys.platform == "linux" else None
