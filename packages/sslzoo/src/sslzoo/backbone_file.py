"""Backbone folders: `backbone.safetensors` and `backbone.json`, what other programs read."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from sslzoo.atomic import write_atomically
from sslzoo.backbones import create_backbone

FORMAT = 1
TENSORS = "backbone.safetensors"
DESCRIPTION = "backbone.json"


def save_backbone(
    folder: str | Path,
    backbone: nn.Module,
    *,
    architecture: dict[str, Any],
    method: str,
    recipe: dict[str, Any],
    epoch: int | None,
    data: str,
) -> None:
    """Write a backbone, under the names of torchvision or timm, and what it is.

    Args:
        folder: made if need be.
        backbone: made by create_backbone(**architecture).
        architecture: create_backbone's arguments, `name` included, or open_official's.
        method: what trained it.
        recipe: how.
        epoch: for how long; None where nobody knows.
        data: on what.

    Raises:
        ValueError: it cannot be written.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    description = {
        "format": FORMAT,
        "architecture": architecture,
        "method": method,
        "recipe": recipe,
        "epoch": epoch,
        "data": data,
        "hash": backbone_hash(backbone),
        "versions": {name: version(name) for name in ("sslzoo", "torch", "torchvision", "timm")},
    }
    write_atomically(folder / TENSORS, safetensors.torch.save(tensors))
    write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())


def load_backbone(folder: str | Path) -> nn.Module:
    """Build the network that a folder describes and fill it; it comes in evaluation mode, on the CPU.

    Raises:
        ValueError: a file is missing or broken, names do not fit, or the two files do not belong together.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, TENSORS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is no backbone folder: {name} is missing. save_backbone writes both files.")
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        architecture, expected = description["architecture"], description["hash"]
        tensors = safetensors.torch.load_file(folder / TENSORS)
    except (json.JSONDecodeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder} holds a broken backbone ({error}); save it again.") from error
    backbone = create_backbone(**architecture)
    _fill(backbone, tensors, folder)
    if backbone_hash(backbone) != expected:
        raise ValueError(f"{folder}: {TENSORS} is not the one that {DESCRIPTION} describes; save both again.")
    return backbone.eval()


def backbone_hash(backbone: nn.Module) -> str:
    """blake2b over names, types, shapes and values of all tensors: the same weights have the same hash anywhere."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _fill(backbone: nn.Module, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    own = backbone.state_dict()
    faults = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "wrong shape": sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape),
    }
    lines = [f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names]
    if lines:
        raise ValueError(f"{folder / TENSORS} does not fit the network in {DESCRIPTION}; {'; '.join(lines)}.")
    backbone.load_state_dict(tensors)


def backbone_input(folder: str | Path) -> dict[str, Any]:
    """What images a backbone was trained on, as the recipe in backbone.json tells: `size` in pixels, `mean`, `std`.

    Raises:
        ValueError: backbone.json is missing or does not say.
    """
    path = Path(folder) / DESCRIPTION
    try:
        recipe = json.loads(path.read_text())["recipe"]
        return {"size": recipe["image_size"], "mean": tuple(recipe["mean"]), "std": tuple(recipe["std"])}
    except FileNotFoundError:
        raise ValueError(f"{folder} is no backbone folder: {DESCRIPTION} is missing.") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say image_size, mean and std in its recipe ({error}).") from error
