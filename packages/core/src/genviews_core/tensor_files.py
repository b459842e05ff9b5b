"""Save tensors and state dicts atomically, and load them without running code."""

from __future__ import annotations

import os
import pickle
import zipfile
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


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Load a file of `save_torch` on the CPU: tensors, numbers, text, lists and dicts. No code in the file is run.

    torch verifies no checksums and unpacks files of any size; `torch.save` itself never compresses. A file whose
    entries are compressed, or larger in total than the file, is therefore rejected before anything is unpacked.

    Raises:
        ValueError: the file cannot be read, is damaged, or holds other types; the message begins with its path.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if compressed or sum(entry.file_size for entry in entries) > os.path.getsize(path):  # noqa: PTH202
                raise ValueError("it unpacks to more than it holds")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} has a wrong checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); change its permissions") from error
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is not a whole resume file ({reason}); delete it to start afresh") from error
