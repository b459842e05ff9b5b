"""Save tensors and state dicts atomically."""

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
    """Call `torch.save` atomically.

    Raises:
        WriteError: the file cannot be written; an existing file is left unchanged.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a path, torch does not report why writing failed
            torch.save(value, file)

    atomic_write(path, write)


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors are copied to the CPU and made contiguous.

    Raises:
        WriteError: the file cannot be written; an existing file is left unchanged.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    atomic_write(path, lambda temporary: save_file(plain, temporary, None if metadata is None else dict(metadata)))
