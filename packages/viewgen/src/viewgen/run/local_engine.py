"""Make the chunks of a plan on this machine: in this process, or in one process a device."""

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


def run_here(job: Job, plan: Plan, journal: Journal) -> Iterator[ChunkResult]:
    """All chunks in this process. A generator that is yet to be loaded computes on one thread of a CPU, or on a GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    single = device == "cpu" and isinstance(job.generator, GeneratorSpec)
    with one_thread() if single else contextlib.nullcontext(), ChunkWorker(job, journal, device) as maker:
        if not job.threads:
            yield from map(maker.make, plan.chunks.tolist())
            return
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            waiting: deque = deque()
            for number in plan.chunks.tolist():
                waiting.append(pool.submit(maker.make, number))
                if len(waiting) == IN_FLIGHT:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: the bytes of a view do not depend on the machine's number of cores."""
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
    """The chunks dealt one by one to processes, one a device (at most one a chunk); a dead one's go to the others.

    Raises:
        ValueError: with what a process raised; or if all are dead.
    """
    workers = [_start(job, device, place) for place, device in enumerate(devices[: len(plan.chunks)])]
    todo = deque(plan.chunks.tolist())
    try:
        while todo or any(worker.busy_with for worker in workers):
            if not workers:
                raise ValueError("every worker died; were they out of memory? The same call goes on from here")
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


def _start(job: Job, device: str, place: int) -> _Worker:
    context: Any = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, device, f"{job.shard}.{place:03d}", theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, device)


def _feed(worker: _Worker, todo: deque[int]) -> None:
    """Hand chunks to a worker; one that has died will be noticed by its closed connection."""
    with contextlib.suppress(BrokenPipeError):
        while todo and len(worker.busy_with) < IN_FLIGHT:
            worker.busy_with.append(todo.popleft())
            worker.connection.send(worker.busy_with[-1])


def _receive(worker: _Worker) -> ChunkResult | None:
    """A worker's next result; None if it is dead."""
    try:
        received = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        return None
    if isinstance(received, ValueError):
        raise received
    return received


def _serve(job: Job, device: str, journal: str, connection: Connection) -> None:
    """A worker's life: make what comes until the connection closes."""
    if device == "cpu":
        torch.set_num_threads(1)
    answering = threading.Lock()

    def answer(number: int, maker: ChunkWorker) -> None:
        try:
            result: Any = maker.make(number)
        except ValueError as error:
            result = error
        with answering, contextlib.suppress(OSError):
            connection.send(result)

    try:
        with (
            Journal(job.views / "journals" / f"{journal}.jsonl") as opened,
            ChunkWorker(job, opened, device) as maker,
            ThreadPoolExecutor(IN_FLIGHT) as pool,
        ):
            while True:
                number = connection.recv()
                pool.submit(answer, number, maker).add_done_callback(_die_of_it)
    except (EOFError, KeyboardInterrupt):
        return
    except ValueError as error:
        with contextlib.suppress(OSError):  # the parent may have closed after another worker's error
            connection.send(error)


def _die_of_it(answered: Future) -> None:
    """What is not a user's mistake ends the process, after its traceback: the others take over."""
    if answered.exception() is not None:
        traceback.print_exception(answered.exception())
        os._exit(1)
