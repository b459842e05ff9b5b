"""Process groups, and collectives whose gradients make several ranks equal to one process.

Shapes: W ranks, B samples per rank. Without a process group there is one rank.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from genviews_core import distributed as core
from genviews_core.device import resolve_device


@dataclass(frozen=True, kw_only=True)
class DistContext:
    """The rank, world size and device of this process."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0


def init_distributed(
    environ: Mapping[str, str] | None = None, device: str = "auto", *, timeout: timedelta | None = None
) -> DistContext:
    """Join the process group that torchrun describes in `environ`, or run as a single process.

    Args:
        environ: usually `os.environ`; RANK, WORLD_SIZE and LOCAL_RANK are read. None: a single process.
        device: "auto" (the GPU if available), "cpu", "cuda", "cuda:N" or "mps".
        timeout: timeout of collective operations; None: torch's default.

    Raises:
        ValueError: the device does not exist, or there are fewer GPUs than processes.
    """
    environ = environ or {}
    world_size = int(environ.get("WORLD_SIZE", "1"))
    if world_size > 1 and device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"expected device auto, cpu or cuda for {world_size} processes, got {device!r}; give one")
    resolved = resolve_device(device, local_rank=int(environ.get("LOCAL_RANK", "0")))
    on_gpu = resolved.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(resolved)
    if world_size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    return DistContext(rank=int(environ.get("RANK", "0")), world_size=world_size, device=resolved)


def wrap_ddp(method: nn.Module) -> DistributedDataParallel:
    """Wrap a method so that gradients are averaged over the ranks.

    Buffers (queue, center, running statistics) are not broadcast from rank 0 before every step:
    `convert_sync_batchnorm` and the methods keep them equal. torch 2.15 renamed the option for that.
    """
    options = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DistributedDataParallel(method, **{name: False})  # pyright: ignore[reportArgumentType]


def world_size() -> int:
    """Return the number of ranks."""
    return core.world_size(core.default_group())


def rank() -> int:
    """Return the rank of this process."""
    return core.rank(core.default_group())


def barrier() -> None:
    """Wait until every rank is here; no-op with one rank."""
    if distributed.is_initialized():
        distributed.barrier()


def all_reduce_min(values: Tensor) -> Tensor:
    """Return the elementwise minimum over all ranks; every rank must call it."""
    least = values.clone()
    if distributed.is_initialized():
        distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return least


@torch.no_grad()
def mean_over_ranks(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the mean of a tensor over all ranks, without gradient."""
    group = core.default_group()
    return tensor if group is None else core.all_reduce_sum(tensor.clone(), group) / group.size()


def gather(tensor: Shaped[Tensor, "B *rest"]) -> Shaped[Tensor, "WB *rest"]:
    """Concatenate the rows of all ranks, in order of rank; B must be the same on all.

    The gradient of a row is the sum of its gradients on all ranks, so that the mean over ranks that
    DistributedDataParallel takes is the gradient of the mean of their losses.
    """
    return tensor if world_size() == 1 else _Gather.apply(tensor)  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """all_gather in the forward pass; in the backward pass, this rank's rows of the summed gradient."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return core.all_gather(tensor, core.default_group()).flatten(0, 1)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        total = core.all_reduce_sum(gradients[0].contiguous().clone(), core.default_group())
        return total.chunk(world_size())[rank()]
