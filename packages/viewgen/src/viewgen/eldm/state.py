"""The state of a training run: what it was started with, and where it stands.

``config.json`` says what is trained on what; ``training_state.pt`` holds weights, averages, optimizer and step.
"""

import json
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn

from viewgen.eldm.config import ELDMConfig
from viewgen.embed import Embeddings
from viewgen.files import write_json

STATE_FILE = "training_state.pt"


class Average:
    """An exponential moving average of parameters; decay is min(ceiling, (1 + step) / (10 + step))."""

    def __init__(self, module: nn.Module, ceiling: float) -> None:
        self.ceiling = ceiling
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the parameters after optimizer step ``step``, counted from 0."""
        decay = min(self.ceiling, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [parameter.detach() for parameter in module.parameters()], 1 - decay)

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from saved values."""
        for name, value in values.items():
            self.values[name].copy_(value)

    def copy_to(self, module: nn.Module) -> None:
        """Put the averages in place of the parameters."""
        module.load_state_dict(self.values, strict=False)


def claim_folder(folder: Path, config: ELDMConfig, embeddings: Embeddings, autoencoder: Path | None) -> None:
    """Write ``config.json``, or compare with the one that is there.

    Raises:
        ValueError: naming the fields that differ.
    """
    digest = blake2b(digest_size=16)
    for key in embeddings.keys:
        digest.update(json.dumps(key).encode())
    described = {
        **asdict(config),
        "encoder_hash": embeddings.encoder_hash,
        "images": digest.hexdigest(),
        "autoencoder": None if autoencoder is None else blake2b((autoencoder / "config.json").read_bytes()).hexdigest(),
    }
    described = json.loads(json.dumps(described))
    path = folder / "config.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, described)
    found = json.loads(path.read_text())
    differing = [name for name in described if found.get(name) != described[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {described[name]}" for name in differing)
        raise ValueError(f"{folder} holds an E-LDM of another configuration ({told}): choose another folder")


def save_state(folder: Path, step: int, module: nn.Module, average: Average, optimizer: torch.optim.Optimizer) -> None:
    """Write the state after ``step`` optimizer steps, atomically."""
    temporary = folder / f"{STATE_FILE}.tmp"
    state = {
        "step": step,
        "module": module.state_dict(),
        "average": average.values,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, temporary)
    temporary.replace(folder / STATE_FILE)


def load_state(folder: Path, module: nn.Module, average: Average, optimizer: torch.optim.Optimizer) -> int:
    """Read the state, if there is one; returns the number of steps made."""
    path = folder / STATE_FILE
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    average.load(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
