"""Small tensors on their way from the CPU to where they are needed."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on a device; on a GPU without waiting for what the GPU is still doing.

    From ordinary memory torch waits for the stream, so that a GPU has nothing to do while the next kernels are
    launched; from page-locked memory, which torch keeps for the next time, the copy takes its place in the stream.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
