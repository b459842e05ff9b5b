"""Where a training run stands: weights, averages, optimizer and step, in ``training_state.pt``.

Beside it, ``training.json`` says what is trained on what.
"""

from pathlib import Path

import torch

from viewgen.eldm.weights import Weights

STATE_FILE = "training_state.pt"
CLAIM_FILE = "training.json"


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
