"""Tensors and torch's states, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from genviews_core.files import atomic_write


def save_torch(path: str | os.PathLike[str], value: Any) -> None:
    """`torch.save`, atomically.

    Raises:
        WriteError: the file cannot be written; what stood there before is untouched.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # of a path torch does not say why it could not be written
            torch.save(value, file)

    atomic_write(path, write)


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors are copied to the CPU and made contiguous.

    Raises:
        WriteError: the file cannot be written; what stood there before is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write(path, lambda temporary: save_file(plain, temporary, None if metadata is None else dict(metadata)))
