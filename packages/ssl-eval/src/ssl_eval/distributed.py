"""Errors, batches and gradients shared by the processes of a group; None stands for a single process."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from genviews_core.distributed import all_gather_object, all_reduce_sum

Item = TypeVar("Item")


@contextmanager
def raise_on_all_ranks(group: dist.ProcessGroup | None) -> Iterator[None]:
    """Raise a ValueError of the block on all processes, so that none waits for a process that has stopped."""
    message = ""
    try:
        yield
    except ValueError as error:
        if group is None:
            raise
        message = str(error) or type(error).__name__
    if messages := [each for each in all_gather_object(message, group) if each]:
        raise ValueError(messages[0])


def lockstep(batches: Iterable[Item], group: dist.ProcessGroup | None, device: str | torch.device) -> Iterator[Item]:
    """Yield the batches of this process, after checking that every process has one.

    Raises:
        ValueError: on all processes, if some but not all have another batch, or if one failed to make its batch.
    """
    if group is None:
        yield from batches
        return
    iterator = iter(batches)
    while True:
        batch, message = None, ""
        try:
            batch = next(iterator, None)
        except ValueError as error:
            message = str(error) or type(error).__name__
        counts = torch.tensor([int(batch is not None), int(bool(message))], device=device)
        having, failed = all_reduce_sum(counts, group).tolist()
        if failed:
            raise ValueError(next(each for each in all_gather_object(message, group) if each))
        if having == 0:
            return
        if batch is None or having < group.size():
            raise ValueError(
                f"expected as many batches on every process, got another batch on {having} of {group.size()} only; "
                "give all of them the same number"
            )
        yield batch


def sum_gradients(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Sum the gradients over all processes, in one message."""
    if group is None:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]), group)
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
