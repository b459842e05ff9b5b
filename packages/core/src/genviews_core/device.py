"""The device that a command's --device names."""

from __future__ import annotations

import re

import torch


def resolve_device(name: str | torch.device = "auto", *, local_rank: int = 0) -> torch.device:
    """The device, or one line where this machine has none such.

    Args:
        name: "auto" (a CUDA GPU where there is one, else the CPU), "cpu", "cuda", "cuda:N" or "mps".
        local_rank: which of the machine's GPUs "auto" and "cuda" are, of several processes.

    Raises:
        ValueError: no such device is here, or the name is none of these.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("expected a device of this machine, got mps, which is not here; give --device cpu")
        return torch.device("mps")
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    if found is None:
        raise ValueError(f"expected a device auto, cpu, cuda, cuda:N or mps, got {name!r}; give one of them")
    if not torch.cuda.is_available():
        raise ValueError(
            f"expected a device of this machine, got {name}, but torch sees no CUDA GPU; "
            "give --device cpu, or install a CUDA build of torch"
        )
    index, count = int(found[1] or local_rank), torch.cuda.device_count()
    if index >= count:
        remedy = "give a lower one" if found[1] else "lower torchrun's --nproc_per_node to that"
        raise ValueError(f"expected one of {count} GPUs, got cuda:{index}; {remedy}")
    return torch.device("cuda", index)
