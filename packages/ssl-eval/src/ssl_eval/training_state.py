"""Where a training stopped: one file, whole or not there, that belongs to one set of settings."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genviews_core.tensor_files import load_torch, save_torch, step_of


def save_state(path: Path, settings: dict[str, Any], epoch: int, state: dict[str, Any]) -> None:
    """Write what `load_state` needs; killed at any moment, it leaves the old file or the new one, whole.

    Args:
        path: its folder is made where missing.
        settings: what the training is, of the kinds that JSON has.
        epoch: how many are done.
        state: tensors, numbers, strings, lists and dicts.

    Raises:
        ValueError: the file cannot be written; what stood there before is untouched.
    """
    save_torch(path, {"settings": _plain(settings), "epoch": epoch, "state": state})


def load_state(path: Path, settings: dict[str, Any], last: int) -> tuple[int, dict[str, Any]] | None:
    """How many epochs are done, of `last`, and the state after them; None where there is no file.

    Raises:
        ValueError: the file is damaged, or of a training with other settings.
    """
    if not path.exists():
        return None
    content = load_torch(path)
    try:
        found, epoch, state = content["settings"], step_of(path, content["epoch"], last), content["state"]
        if not (isinstance(found, dict) and isinstance(state, dict)):
            raise TypeError("its settings or its state are no dict")
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
    """Fill both with what `save_state` wrote of them, if there is a file; how many epochs or steps of `last` are done.

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
