"""What makes a network an encoder."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genviews_core.backbones import describe, first_line
from pairquality.encoder import TakeMap, Triple


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network with what its images must look like and how its features are taken."""

    module: nn.Module
    size: int
    mean: Triple
    std: Triple
    take_map: TakeMap | None = None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch file; nothing that the file holds is run.

    Raises:
        ValueError: it is missing, broken, or holds more than tensors.
    """
    if not path.is_file():
        raise ValueError(f"No weights at {path}: give a .safetensors file or a state dict that torch.save wrote.")
    try:
        held: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"Cannot read the weights {path}: {first_line(error)}") from error
    for wrapper in ("state_dict", "model"):
        held = held.get(wrapper, held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"{path} holds no state dict of tensors by name.")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Puts tensors into a network, all of them into all of it.

    Raises:
        ValueError: names or shapes differ; counts, and up to three names of each kind.
    """
    own = module.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}  # old files lack these counters
    faults = {
        "missing": sorted(needed - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "wrong shape": sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape),
    }
    if mismatch := describe(faults):
        raise ValueError(f"The weights {source} do not fit the network: {mismatch}.")
    if nonfinite := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{source} holds NaN or infinity ({describe({'found in': nonfinite})}): give other weights.")
    module.load_state_dict(dict(tensors))
