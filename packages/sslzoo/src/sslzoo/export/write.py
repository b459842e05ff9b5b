"""Files of tensors."""

from pathlib import Path

from torch import Tensor

from genviews_core.tensor_files import save_tensors, save_torch


def write_tensors(tensors: dict[str, Tensor], path: str | Path | None) -> dict[str, Tensor]:
    """Write them as the path's ending says, .safetensors or torch.save's; without a path do nothing.

    Returns:
        The tensors.

    Raises:
        ValueError: they cannot be written.
    """
    if path is not None and Path(path).suffix == ".safetensors":
        save_tensors(path, tensors)
    elif path is not None:
        save_torch(path, tensors)
    return tensors
