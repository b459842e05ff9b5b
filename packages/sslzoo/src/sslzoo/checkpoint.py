"""Resume state: one file from which training goes on, to the last bit."""

import json
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from sslzoo.atomic import write_atomically
from sslzoo.methods.method import Method

FORMAT = 1
KERNELS = ("fused", "foreach", "capturable")
"""Options of torch's optimizers that change speed and not the result."""


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """Where training stopped.

    Attributes:
        step: how many steps were done.
        extra: what the caller added.
    """

    step: int
    extra: dict[str, Any] = field(default_factory=dict)


def save_resume(
    path: str | Path,
    *,
    step: int,
    method: Method,
    optimizer: Optimizer,
    recipe: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write all that `load_resume` needs; killed at any moment, it leaves the old file or the new one, whole.

    Args:
        path: the file; on several ranks only one writes it.
        step: how many steps are done.
        method: the bare method, not its DistributedDataParallel wrapper; call after after_step().
        optimizer: its optimizer.
        recipe: what the training is, of the kinds that JSON has.
        extra: tensors, numbers, strings, lists and dicts of the caller's own.

    Raises:
        ValueError: it cannot be written; the old file is still there.
    """
    state = {
        "format": FORMAT,
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recipe": _plain(recipe),
        "extra": extra or {},
    }
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_resume(path: str | Path, method: Method, optimizer: Optimizer, recipe: dict[str, Any]) -> ResumeState | None:
    """Put method and optimizer where `save_resume` found them.

    Returns:
        The step to go on from, or None where there is no file.

    Raises:
        ValueError: the file is damaged, or belongs to another recipe. Nothing is loaded then.
    """
    path = Path(path)
    if not path.exists():
        return None
    state = _read(path)
    differing = _differences(state["recipe"], _plain(recipe))
    if differing:
        raise ValueError(
            f"{path} belongs to another recipe; choose another folder or go back to its own. "
            f"Differing (file, now): {'; '.join(differing)}."
        )
    method.load_state_dict(state["method"])
    _keep_kernels(state["optimizer"], optimizer)
    optimizer.load_state_dict(state["optimizer"])
    return ResumeState(step=state["step"], extra=state["extra"])


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} has a wrong checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is not a whole resume file ({reason}); delete it to start afresh.") from error
    return state


def _keep_kernels(saved: dict[str, Any], optimizer: Optimizer) -> None:
    """Which kernels take a step is the running program's choice, not the file's."""
    for old, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        old.update({name: own[name] for name in KERNELS if name in own})


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(recipe))


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Fields that differ, nested ones by dotted name."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{name}: {json.dumps(old)}, {json.dumps(new)}"]
    absent = "(absent)"
    found = []
    for key in sorted(old.keys() | new.keys()):
        dotted = f"{name}.{key}" if name else key
        found += _differences(old.get(key, absent), new.get(key, absent), dotted)
    return found
