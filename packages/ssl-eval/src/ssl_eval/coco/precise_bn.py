"""Precise batch norm: statistics over many batches of the trained network, instead of moving averages.

"Rethinking Batch in BatchNorm" (https://arxiv.org/abs/2105.07576), section 3; as fvcore's precise_bn.py, which
detectron2's TEST.PRECISE_BN runs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genviews_core.distributed import all_reduce_sum


@torch.no_grad()
def update_bn_statistics(
    network: nn.Module,
    forward: Callable[[Any], object],
    batches: Iterable[Any],
    group: dist.ProcessGroup | None = None,
) -> None:
    """Set the mean and variance of every batch norm to those over all values of these batches.

    Args:
        network: in training mode.
        forward: runs the network on a batch.
        batches: batches of this process.
        group: processes over which the batch norms are synchronized.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    if not norms:
        return
    place = next(network.parameters()).device
    totals = torch.zeros(len(norms), dtype=torch.double, device=place)
    sums: list[tuple[Tensor, Tensor]] = [(torch.zeros(()), torch.zeros(()))] * len(norms)
    with _last_batch_statistics(norms) as met:
        for batch in batches:
            met.update(dict.fromkeys(norms, 0))
            forward(batch)
            counts = all_reduce_sum(torch.tensor(list(met.values()), dtype=torch.double, device=place), group)
            totals += counts
            for number, (norm, count) in enumerate(zip(norms, counts, strict=True)):
                mean, variance = _running(norm)
                biased = variance.double() * (count - 1) / count
                square = mean.double() ** 2 + biased
                if count > 0:
                    first, second = sums[number]
                    sums[number] = (first.to(place) + count * mean.double(), second.to(place) + count * square)
    for norm, total, (first, second) in zip(norms, totals, sums, strict=True):
        mean, variance = _running(norm)
        if total > 0:
            mean.copy_(first / total)
            variance.copy_(second / total - (first / total) ** 2)


def _running(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


@contextmanager
def _last_batch_statistics(norms: list[_BatchNorm]) -> Iterator[dict[_BatchNorm, int]]:
    """Make running statistics those of the last batch, and count the values per channel that each norm sees."""
    momenta = [norm.momentum for norm in norms]
    met: dict[_BatchNorm, int] = {}

    def count(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        met[norm] = inputs[0].numel() // inputs[0].shape[1]

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield met
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()
