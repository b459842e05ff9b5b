"""Loss and gradients of one step as a CUDA graph, to avoid the CPU overhead of launching thousands of kernels.

https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture: inputs are copied into static
tensors, the captured kernels are replayed, and the gradients are written to the same tensors as during capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # steps before capture, as in the documentation
_Item = TypeVar("_Item")


class LossAndGradients:
    """Compute loss_of(*inputs) and its gradients, eagerly or, with `capture`, as a CUDA graph.

    Args:
        loss_of: maps tensors of fixed shapes to a scalar; must not synchronize with the device.
        parameters: parameters that receive gradients.
        capture: capture a graph at the first call; GPU only.
    """

    def __init__(
        self, loss_of: Callable[..., Tensor], parameters: Sequence[torch.nn.Parameter], *, capture: bool
    ) -> None:
        self._loss_of, self._capture = loss_of, capture
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._graph: Any = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the detached loss, valid until the next call, and set the gradients of the parameters."""
        if not self._capture:
            self._zero_grad()
            loss = self._loss_of(*inputs)
            loss.backward()
            return loss.detach()
        self.prepare(*inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._loss

    def prepare(self, *inputs: Tensor) -> None:
        """Capture the graph now from inputs of the right shapes, ideally before other threads use the device."""
        if self._capture and self._graph is None:
            self._record(inputs)

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [value.clone() for value in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._zero_grad()
                self._loss_of(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(side)
        self._zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            loss = self._loss_of(*self._inputs)
            loss.backward()
            self._loss = loss.detach()

    def _zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def tune(device: str | torch.device) -> None:
    """Enable TF32 and cuDNN benchmarking."""
    if torch.device(device).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def prefetch(items: Iterator[_Item], device: torch.device) -> Iterator[_Item]:
    """Yield the items of an iterator; on a GPU, prepare the next one in a thread with its own CUDA stream.

    Items are tuples of tensors. Their producer may synchronize with its own stream without blocking the consumer.
    """
    if device.type != "cuda":
        yield from items
        return
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))  # the inputs of the items must be ready

    def make() -> tuple[Any, Any]:
        with torch.cuda.stream(side):
            item = next(items, None)
            done = torch.cuda.Event()
            done.record(side)
        return item, done

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make)
        while True:
            item, done = coming.result()
            if item is None:
                return
            coming = pool.submit(make)
            main = torch.cuda.current_stream(device)
            main.wait_event(done)
            for tensor in item:
                tensor.record_stream(main)
            yield item
