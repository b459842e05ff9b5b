"""Loss and gradients of one step as a CUDA graph, so that nothing waits for the CPU to launch thousands of kernels.

https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture: inputs are copied to fixed places, the
recorded kernels run again, and the gradients lie where they lay when it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # steps before the recording, as the documentation has it
_Item = TypeVar("_Item")


class LossAndGradients:
    """loss_of(*inputs) with its gradients; recorded at the first call where that is wanted, plain otherwise.

    Args:
        loss_of: fixed-shape tensors to a scalar; nothing in it may wait for the device.
        parameters: that get gradients.
        capture: whether to record; only on a GPU.
    """

    def __init__(
        self, loss_of: Callable[..., Tensor], parameters: Sequence[torch.nn.Parameter], *, capture: bool
    ) -> None:
        self._loss_of, self._capture = loss_of, capture
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._graph: Any = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The loss, detached, valid until the next call; the gradients lie in the parameters."""
        if not self._capture:
            self._forget()
            loss = self._loss_of(*inputs)
            loss.backward()
            return loss.detach()
        self.prepare(*inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._loss

    def prepare(self, *inputs: Tensor) -> None:
        """Record now, from inputs of the right shapes; best before other threads use the device."""
        if self._capture and self._graph is None:
            self._record(inputs)

    def _record(self, inputs: Sequence[Tensor]) -> None:
        self._inputs = [value.clone() for value in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forget()
                self._loss_of(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(side)
        self._forget()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            loss = self._loss_of(*self._inputs)
            loss.backward()
            self._loss = loss.detach()

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def tune(device: str | torch.device) -> None:
    """Let matrix products and convolutions use tf32, and cuDNN the algorithms that it finds to be the fastest."""
    if torch.device(device).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def prefetch(items: Iterator[_Item], device: torch.device) -> Iterator[_Item]:
    """The items, each made while the one before is used: on a GPU by a thread with a stream of its own.

    Items are tuples of tensors. What makes them may wait for its own stream without holding up anything else.
    """
    if device.type != "cuda":
        yield from items
        return
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))  # what the items are made from must be there

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
