"""Collectives over an explicit process group; None stands for a single process."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

Item = TypeVar("Item")


def default_group() -> ProcessGroup | None:
    """Return the group of all processes of the job, or None if torch.distributed is not initialized."""
    import torch.distributed as dist

    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None


def destroy_process_group() -> None:
    """Leave the process group of the job, if any, and end its threads; call it before the process exits.

    gloo's threads end with the last reference to the group, and one that still runs at interpreter exit may abort the
    process ("terminate called without an active exception"). References in cycles, such as those of
    DistributedDataParallel or of a traceback, are therefore collected.
    """
    dist = sys.modules.get("torch.distributed")  # not imported: there is no group
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def world_size(group: ProcessGroup | None) -> int:
    """Return the number of processes in the group."""
    return 1 if group is None else group.size()


def rank(group: ProcessGroup | None) -> int:
    """Return the rank of this process in the group."""
    return 0 if group is None else group.rank()


def all_reduce_sum(tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """Sum a tensor over all processes in place, and return it."""
    if group is not None:
        import torch.distributed as dist

        dist.all_reduce(tensor, group=group)
    return tensor


def all_gather(tensor: torch.Tensor, group: ProcessGroup | None) -> torch.Tensor:
    """Stack the tensors of all processes, of equal shape, in the order of their ranks; without gradient."""
    import torch

    if group is None:
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(group.size())]
    torch.distributed.all_gather(parts, tensor.contiguous(), group=group)
    return torch.stack(parts)


def all_gather_object(item: Item, group: ProcessGroup | None) -> list[Item]:
    """Return the items of all processes in the order of their ranks; for small objects that can be pickled."""
    if group is None:
        return [item]
    import torch.distributed as dist

    items: list[Item] = [item] * group.size()
    dist.all_gather_object(items, item, group=group)
    return items
