"""Setup of single-process and distributed jobs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from genviews_core.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of a job: its rank, how many there are, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and draws progress bars."""
        return self.rank == 0


def start_worker(environ: Mapping[str, str], device: str = "auto", *, patience: timedelta | None = None) -> Worker:
    """Join the process group that torchrun describes in `environ`, or run as a single process.

    Args:
        environ: usually `os.environ`; RANK, WORLD_SIZE and LOCAL_RANK are read.
        device: "auto" (the GPU if there is one), "cpu", "cuda", "cuda:N" or "mps".
        patience: timeout of collective operations; None: torch's default.

    Raises:
        ValueError: the device does not exist, or there are fewer GPUs than processes.
    """
    world_size = int(environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"expected --device auto, cpu or cuda for {world_size} processes, got {device!r}; give one")
    place = resolve_device(device, local_rank=int(environ.get("LOCAL_RANK", "0")))
    on_gpu = place.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=patience)
    return Worker(rank=int(environ.get("RANK", "0")), world_size=world_size, device=place)


def wait_for_all() -> None:
    """Block until every process of the job is here; nothing in a job of one."""
    if dist.is_initialized():
        dist.barrier()


def least_of_all(values: torch.Tensor) -> torch.Tensor:
    """Each value's minimum over all processes of the job; all must call it at the same point."""
    least = values.clone()
    if dist.is_initialized():
        dist.all_reduce(least, dist.ReduceOp.MIN)
    return least


def distribute(method: nn.Module) -> DistributedDataParallel:
    """Wrap a method so that gradients are averaged over the ranks.

    Buffers (queue, center, running statistics) are not copied from rank 0 before every step: `synchronise_batch_norm`
    and the methods keep them equal. torch 2.15 gave the option for that a new name.
    """
    options = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DistributedDataParallel(method, **{name: False})  # pyright: ignore[reportArgumentType]
