"""Collectives of a training step, with the gradient that makes ranks together equal one process.

Shapes: W ranks, B samples per rank. Without a process group there is one rank.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def gather(tensor: Shaped[Tensor, "B *rest"]) -> Shaped[Tensor, "WB *rest"]:
    """Every rank's rows, in order of rank; B must be the same on all.

    The gradient of a row is the sum over the ranks of what each did with it, so that the mean over the ranks that
    DistributedDataParallel takes is the gradient of the mean of their losses.
    """
    return tensor if world_size() == 1 else _Gather.apply(tensor)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def mean_over_ranks(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean of a tensor over all ranks, without gradient."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total / world_size()


class _Gather(torch.autograd.Function):
    """all_gather forward; backward, the summed gradient's own rows."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(world_size())[rank()]
