"""Single-threaded processes that share the jobs of the quickstart.

The OpenMP threads of one process wait for each other at the end of every parallel region, so on a busy machine they
are much slower than their share of the processor. Single-threaded processes with a job each do not wait for each other,
and the results of a job do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from genviews_core.command import Interrupted
from genviews_core.progress import Progress

Report = Callable[..., None]
_messages: Any = None


class Workers:
    """A pool of processes that run jobs and report their progress.

    Args:
        count: number of processes.
        single_threaded: whether each computes on one thread.
        progress: display with a bar per job, which also prints messages.
    """

    def __init__(self, count: int, *, single_threaded: bool, progress: Progress) -> None:
        context = multiprocessing.get_context("spawn")
        self.count, self._progress = count, progress
        self._updates: dict[str, Report] = {}
        self._queue = context.Queue()
        self._pool = ProcessPoolExecutor(
            count, mp_context=context, initializer=_start, initargs=(self._queue, single_threaded)
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def submit(self, name: str, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a job as soon as a process is free; it is called with its arguments and a `Reporter`."""
        return self._pool.submit(_run, name, job, arguments)

    def close(self, *, stop: bool) -> None:
        """Wait for the processes to end; with `stop`, terminate them (trainings save a checkpoint first)."""
        if stop:
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._queue.put(None)
        self._listener.join()

    def _listen(self) -> None:
        """Forward reports of the processes to the progress bars."""
        while (report := self._queue.get()) is not None:
            name, values = report
            if name is None:
                self._progress.message(values)
                continue
            if name not in self._updates:
                self._updates[name] = self._progress.add_task(name)
            self._updates[name](*values)


class Reporter:
    """Callback of a job: called with (done, total) and scalars, it updates the progress bar of the job."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, done: int, total: int, scalars: dict[str, float] | None = None) -> None:
        """Report progress."""
        _messages.put((self.name, (done, total, scalars)))

    def message(self, text: str) -> None:
        """Print a line."""
        _messages.put((None, text))


@contextmanager
def start_workers(count: int, *, single_threaded: bool, progress: Progress) -> Iterator[Workers]:
    """Context manager of `Workers`; an error inside it terminates the processes.

    Raises:
        ValueError: the system ended a process.
    """
    workers = Workers(count, single_threaded=single_threaded, progress=progress)
    try:
        yield workers
    except BaseException as error:
        workers.close(stop=True)
        if isinstance(error, BrokenProcessPool):
            message = "a process of the quickstart was killed (too little memory?); run the same command to continue"
            raise ValueError(message) from error
        raise
    workers.close(stop=False)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(messages: Any, single_threaded: bool) -> None:
    """Initialize a worker process: it ignores Ctrl-C, which the parent handles, and exits if the parent does."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if single_threaded:
        import torch

        torch.set_num_threads(1)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _run(name: str, job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return job(*arguments, Reporter(name))
    except Interrupted:
        raise KeyboardInterrupt from None  # TrainingInterrupted cannot be pickled
