"""Run the chunks of a plan with Ray Data: one actor per device, chunks streamed to idle actors.

All machines of the cluster must share the folder of views. An actor that dies is restarted and its chunks are repeated,
with the same files. A program started by ``uv run`` must set RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 before this module is
imported; otherwise Ray builds the actors' environment from the project.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from viewgen.manifest.journal import Journal
from viewgen.run.local_engine import IN_FLIGHT
from viewgen.run.plan import Plan
from viewgen.run.worker import ChunkResult, ChunkWorker, Job

MOST_BLOCKS = 10_000  # chunks are handed out in blocks, so that a billion views are no burden on the scheduler


class RayWorker:
    """A Ray Data actor: a chunk worker with its own journal.

    Args:
        job: reference to the job in Ray's object store.
    """

    def __init__(self, job: Any) -> None:
        gpu = torch.cuda.is_available() and bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
        if not gpu:
            torch.set_num_threads(1)
        self._error: str | None = None
        try:
            held: Job = ray.get(job)
            journal = Journal(held.views / "journals" / f"{held.shard}.{uuid.uuid4().hex}.jsonl")
            self._worker = ChunkWorker(held, journal, "cuda" if gpu else "cpu")
        except ValueError as error:
            self._error = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Run a batch of chunks."""
        made = [self._make(int(number)) for number in batch["number"]]
        return {name: [result[name] for result in made] for name in ("number", "written", "failed", "size", "error")}

    def _make(self, number: int) -> dict[str, Any]:
        """Run a chunk; a user's mistake is returned as text, because Ray would retry or wrap an exception."""
        if self._error is None:
            try:
                return {**self._worker.run(number)._asdict(), "error": ""}
            except ValueError as error:
                self._error = str(error)
        return {"number": number, "written": 0, "failed": 0, "size": 0, "error": self._error}


def run_ray(job: Job, plan: Plan, actors: int | None) -> Iterator[ChunkResult]:
    """Run all chunks on the cluster joined by ``ray.init``, or on a local one.

    Raises:
        ValueError: raised by an actor.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = actors or gpus or int(ray.cluster_resources()["CPU"])
    numbers = ray.data.from_items(
        [{"number": number} for number in plan.chunks.tolist()],
        override_num_blocks=min(len(plan.chunks), MOST_BLOCKS),
    )
    results = numbers.map_batches(
        RayWorker,
        fn_constructor_args=(ray.put(job),),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_gpus=1 if gpus else 0,
    )
    for result in results.iter_rows():
        if result["error"]:
            raise ValueError(result["error"])
        yield ChunkResult(result["number"], result["written"], result["failed"], result["size"])
