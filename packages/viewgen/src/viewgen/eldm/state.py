"""Where a training run stands: weights, averages, optimizer and step, in ``training_state.pt``.

Beside it, ``training.json`` says what is trained on what.
"""

from pathlib import Path

from genviews_core.tensor_files import load_torch, save_torch, step_of
from viewgen.eldm.weights import Weights

STATE_FILE = "training_state.pt"
CLAIM_FILE = "training.json"


def save_state(folder: Path, step: int, weights: Weights) -> None:
    """Write the state after ``step`` optimizer steps, atomically."""
    save_torch(folder / STATE_FILE, {"step": step, **weights.state()})


def load_state(folder: Path, weights: Weights) -> int:
    """Load the state, if there is one, and return the number of completed steps.

    Raises:
        ValueError: if the file is damaged, or its step is out of range for this training.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return 0
    state = load_torch(path)
    try:
        step = step_of(path, state["step"], weights.config.steps)
        weights.load(state)
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a complete state of this training; delete it to start afresh") from error
    return step
