"""Resolve the device given by a command's --device option."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(name: str | torch.device = "auto", *, local_rank: int = 0) -> torch.device:
    """Return the device, after checking that this machine has it.

    Args:
        name: "auto" (a CUDA GPU if available, otherwise the CPU), "cpu", "cuda", "cuda:N" or "mps".
        local_rank: index of the GPU that "auto" and "cuda" select, with one process per GPU.

    Raises:
        ValueError: the device is not available on this machine, or the name is not one of these.
    """
    import torch

    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("expected a device of this machine, got mps, which is not available; give --device cpu")
        return torch.device("mps")
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise ValueError(f"expected a device auto, cpu, cuda, cuda:N or mps, got {name!r}; give one of them")
    if not torch.cuda.is_available():
        raise ValueError(
            f"expected a device of this machine, got {name}, but torch sees no CUDA GPU; "
            "give --device cpu, or install a CUDA build of torch"
        )
    index, count = int(match[1] or local_rank), torch.cuda.device_count()
    if index >= count:
        remedy = "give a lower one" if match[1] else "lower torchrun's --nproc_per_node to that"
        raise ValueError(f"expected one of {count} GPUs, got cuda:{index}; {remedy}")
    return torch.device("cuda", index)
