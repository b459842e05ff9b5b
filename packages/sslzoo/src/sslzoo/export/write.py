"""Files of tensors."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sslzoo.atomic import write_atomically


def write_tensors(tensors: dict[str, Tensor], path: str | Path | None) -> dict[str, Tensor]:
    """Write them as the path's ending says, .safetensors or torch.save's; without a path do nothing.

    Returns:
        The tensors.

    Raises:
        ValueError: they cannot be written.
    """
    if path is not None and Path(path).suffix == ".safetensors":
        write_atomically(path, safetensors.torch.save(tensors))
    elif path is not None:
        write_atomically(path, lambda temporary: torch.save(tensors, temporary))
    return tensors
