"""Run the chunks of a plan on this machine: in this process, or in one process per device."""

import contextlib
import multiprocessing
import os
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from viewgen.loading import GeneratorSpec
from viewgen.manifest.journal import Journal
from viewgen.run.plan import Plan
from viewgen.run.worker import ChunkResult, ChunkWorker, Job

IN_FLIGHT = 2  # chunks of one device at a time: one computes while another is read or written


def run_here(job: Job, plan: Plan, journal: Journal, device: str | None = None) -> Iterator[ChunkResult]:
    """Run all chunks in this process.

    A generator that is not loaded yet runs on the device, by default a GPU if there is one; on a CPU on one thread.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    single = device == "cpu" and isinstance(job.generator, GeneratorSpec)
    with one_thread() if single else contextlib.nullcontext(), ChunkWorker(job, journal, device) as chunk_worker:
        if not job.threads:
            yield from map(chunk_worker.run, plan.chunks.tolist())
            return
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            waiting: deque = deque()
            for number in plan.chunks.tolist():
                waiting.append(pool.submit(chunk_worker.run, number))
                if len(waiting) == IN_FLIGHT:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, so that views do not depend on the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    device: str
    busy_with: list[int] = field(default_factory=list)


def run_processes(job: Job, plan: Plan, devices: Sequence[str]) -> Iterator[ChunkResult]:
    """Run chunks in one process per device; the chunks of a process that dies go to the others.

    Raises:
        ValueError: raised by a process; or if all processes have died.
    """
    workers = [_start(job, device, index) for index, device in enumerate(devices[: len(plan.chunks)])]
    todo = deque(plan.chunks.tolist())
    try:
        while todo or any(worker.busy_with for worker in workers):
            if not workers:
                raise ValueError("all workers died, perhaps out of memory; repeat the same call to resume")
            for worker in workers:
                _feed(worker, todo)
            ready = wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                result = _receive(worker)
                if result is None:
                    warnings.warn(f"the worker on {worker.device} died; the others take over its views", stacklevel=2)
                    todo.extendleft(worker.busy_with)
                    workers.remove(worker)
                else:
                    worker.busy_with.remove(result.number)
                    yield result
    except BaseException:
        for worker in workers:
            worker.process.terminate()  # loading may take minutes; files are written atomically
        raise
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.process.join()


def _start(job: Job, device: str, index: int) -> _Worker:
    context: Any = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, device, f"{job.shard}.{index:03d}", theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, device)


def _feed(worker: _Worker, todo: deque[int]) -> None:
    """Send chunks to a worker; if it has died, its closed connection will show that later."""
    with contextlib.suppress(BrokenPipeError):
        while todo and len(worker.busy_with) < IN_FLIGHT:
            worker.busy_with.append(todo.popleft())
            worker.connection.send(worker.busy_with[-1])


def _receive(worker: _Worker) -> ChunkResult | None:
    """Receive a worker's next result; None if it has died."""
    try:
        received = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    if isinstance(received, ValueError):
        try:
            raise received
        finally:
            del received  # a cycle of error and traceback would keep all frames alive until the garbage is collected
    return received


def _serve(job: Job, device: str, journal: str, connection: Connection) -> None:
    """Run chunks in a worker process until the connection closes."""
    if device == "cpu":
        torch.set_num_threads(1)
    answering = threading.Lock()

    def answer(number: int, chunk_worker: ChunkWorker) -> None:
        try:
            result: Any = chunk_worker.run(number)
        except ValueError as error:
            result = error
        with answering, contextlib.suppress(OSError):
            connection.send(result)

    try:
        with (
            Journal(job.views / "journals" / f"{journal}.jsonl") as opened,
            ChunkWorker(job, opened, device) as chunk_worker,
            ThreadPoolExecutor(IN_FLIGHT) as pool,
        ):
            while True:
                number = connection.recv()
                pool.submit(answer, number, chunk_worker).add_done_callback(_exit_on_error)
    except (EOFError, KeyboardInterrupt):
        return
    except ValueError as error:
        with contextlib.suppress(OSError):  # the parent may have closed after another worker's error
            connection.send(error)


def _exit_on_error(answered: Future) -> None:
    """Print the traceback of an unexpected error and end the process; other workers take over."""
    if answered.exception() is not None:
        traceback.print_exception(answered.exception())
        os._exit(1)
