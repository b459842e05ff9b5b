"""The state of a training run: what it was started with, and where it stands.

``training.json`` says what is trained on what; ``training_state.pt`` holds weights, averages, optimizer and step.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from viewgen.eldm.weights import Weights
from viewgen.files import write_json

STATE_FILE = "training_state.pt"


def claim_folder(folder: Path, what: str, description: dict[str, Any]) -> None:
    """Write ``training.json``, or compare with the one that is there.

    Raises:
        ValueError: naming the fields that differ.
    """
    described = json.loads(json.dumps(description))
    path = folder / "training.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, described)
    found = json.loads(path.read_text())
    differing = [name for name in described if found.get(name) != described[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {described[name]}" for name in differing)
        raise ValueError(f"{folder} holds {what} of another configuration ({told}): choose another folder")


def keys_hash(keys: Iterable[str]) -> str:
    """A hash of the names of the images."""
    digest = blake2b(digest_size=16)
    for key in keys:
        digest.update(json.dumps(key).encode())
    return digest.hexdigest()


def save_state(folder: Path, step: int, weights: Weights) -> None:
    """Write the state after ``step`` optimizer steps, atomically."""
    temporary = folder / f"{STATE_FILE}.tmp"
    torch.save({"step": step, **weights.state()}, temporary)
    temporary.replace(folder / STATE_FILE)


def load_state(folder: Path, weights: Weights) -> int:
    """Read the state, if there is one; returns the number of steps made."""
    path = folder / STATE_FILE
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights.load(state)
    return state["step"]
