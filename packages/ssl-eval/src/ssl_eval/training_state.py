"""Resume the training of a model and its optimizer from a file bound to the settings."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genviews_core.checkpoint import load_checkpoint, restoring, save_checkpoint


def save(path: Path, settings: dict[str, Any], done: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a resume file atomically, after `done` epochs or steps.

    Raises:
        ValueError: the file cannot be written; the old file is kept.
    """
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(path, step=done, settings=settings, state=state)


def restore(
    path: Path | None, settings: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, last: int
) -> int:
    """Restore model and optimizer if there is a file, and return the finished epochs or steps, at most `last`.

    Raises:
        ValueError: the file is damaged, or belongs to other settings.
    """
    loaded = None if path is None else load_checkpoint(path, settings, last_step=last)
    if path is None or loaded is None:
        return 0
    done, state = loaded
    with restoring(path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    return done
