"""State of a run that another machine can continue: weights in half precision, in files of at most 15 MB.

The small files suit GPU machines that limit the size of transferred files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genviews_core.files import write_json

LARGEST = 15 * 10**6  # maximum bytes per file
STATE = "state.json"


def save_weights(folder: Path, name: str, tensors: dict[str, Tensor]) -> list[Path]:
    """Write tensors to NAME-0.safetensors, NAME-1.safetensors, ..., floating-point ones in half precision."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous().clone()
        kept = kept.half() if kept.is_floating_point() else kept
        if size + kept.nbytes > LARGEST and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][key] = kept
        size += kept.nbytes
    files = [folder / f"{name}-{number}.safetensors" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        save_file(part, file.with_suffix(".part"))
    for file in files:
        file.with_suffix(".part").replace(file)
    for stale in sorted(set(folder.glob(f"{name}-*.safetensors")) - set(files)):
        stale.unlink()
    return files


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Load the tensors in single precision; empty if there is no file."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob(f"{name}-*.safetensors")):
        tensors |= load_file(file)
    return {key: value.float() if value.dtype is torch.half else value for key, value in tensors.items()}


def save_progress(folder: Path, progress: dict[str, Any]) -> None:
    """Write state.json; call this last, so that it lists only existing files."""
    write_json(folder / STATE, progress)


def load_progress(folder: Path) -> dict[str, Any]:
    """Read state.json; empty if there is no file."""
    file = folder / STATE
    return json.loads(file.read_text()) if file.is_file() else {}
