"""Resume files of trainings, bound to their settings."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genviews_core.tensor_files import load_torch, save_torch, step_of


def save_state(path: Path, settings: dict[str, Any], epoch: int, state: dict[str, Any]) -> None:
    """Write a resume file atomically: if the process is killed, the old or the new file is complete.

    Args:
        path: the file; its folder is created if missing.
        settings: settings of the training, JSON-serializable.
        epoch: number of finished epochs.
        state: tensors, numbers, strings, lists and dicts.

    Raises:
        ValueError: the file cannot be written; the old file is kept.
    """
    save_torch(path, {"settings": _plain(settings), "epoch": epoch, "state": state})


def load_state(path: Path, settings: dict[str, Any], last: int) -> tuple[int, dict[str, Any]] | None:
    """Load the number of finished epochs, at most `last`, and the state; return None if there is no file.

    Raises:
        ValueError: the file is damaged, or belongs to other settings.
    """
    if not path.exists():
        return None
    content = load_torch(path)
    try:
        found, epoch, state = content["settings"], step_of(path, content["epoch"], last), content["state"]
        if not (isinstance(found, dict) and isinstance(state, dict)):
            raise TypeError("its settings or its state are not a dict")
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path} is not a whole resume file ({error}); delete it to start afresh") from None
    wanted = _plain(settings)
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        each = "; ".join(f"{name}: {found.get(name)}, {wanted.get(name)}" for name in differing)
        raise ValueError(f"{path} belongs to another training; choose another file. Differing (file, now): {each}")
    return epoch, state


def restore(
    path: Path | None, settings: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, last: int
) -> int:
    """Restore model and optimizer if there is a file, and return the finished epochs or steps, at most `last`.

    Raises:
        ValueError: as `load_state`.
    """
    found = None if path is None else load_state(path, settings, last)
    if found is None:
        return 0
    done, state = found
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a whole resume file ({reason}); delete it to start afresh") from error
    return done


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings))
