"""What the processes of a job tell each other; without a group every function is a job of one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


def size_of(group: dist.ProcessGroup | None) -> int:
    """How many processes there are."""
    return 1 if group is None else group.size()


def rank_in(group: dist.ProcessGroup | None) -> int:
    """Which of them this is."""
    return 0 if group is None else group.rank()


def sum_over(group: dist.ProcessGroup | None, tensor: Tensor) -> Tensor:
    """The tensor, summed in place over all processes."""
    if group is not None:
        dist.all_reduce(tensor, group=group)
    return tensor


def gather_over(group: dist.ProcessGroup | None, item: Item) -> list[Item]:
    """What each process holds, rank by rank, on every process; small things that can be pickled."""
    if group is None:
        return [item]
    items: list[Item] = [item] * group.size()
    dist.all_gather_object(items, item, group=group)
    return items


@contextmanager
def failing_together(group: dist.ProcessGroup | None) -> Iterator[None]:
    """A ValueError inside is raised on all processes, once all are through: none waits for one that is gone."""
    fault = ""
    try:
        yield
    except ValueError as error:
        if group is None:
            raise
        fault = str(error) or type(error).__name__
    if faults := [each for each in gather_over(group, fault) if each]:
        raise ValueError(faults[0])


def in_step(batches: Iterable[Item], group: dist.ProcessGroup | None, device: str | torch.device) -> Iterator[Item]:
    """The batches, checked to be as many on every process: one that went on alone would wait for ever.

    Raises:
        ValueError: on all processes, where one has no batch left and another has, or one could not make its batch.
    """
    if group is None:
        yield from batches
        return
    mine = iter(batches)
    while True:
        batch, fault = None, ""
        try:
            batch = next(mine, None)
        except ValueError as error:
            fault = str(error) or type(error).__name__
        counts = torch.tensor([int(batch is not None), int(bool(fault))], device=device)
        having, faulty = sum_over(group, counts).tolist()
        if faulty:
            raise ValueError(next(told for told in gather_over(group, fault) if told))
        if having == 0:
            return
        if batch is None or having < group.size():
            raise ValueError(f"only {having} of {group.size()} processes have a batch left: give all of them as many")
        yield batch


def sum_gradients(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Add up the gradients of all processes, in one message."""
    if group is None:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total = sum_over(group, torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
