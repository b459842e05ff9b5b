"""Resume files for bit-identical continuation of a training."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from genviews_core.tensor_files import load_torch, save_torch, step_of
from sslzoo.methods.method import Method

FORMAT = 1
KERNELS = ("fused", "foreach", "capturable")
"""Options of torch's optimizers that change speed and not the result."""


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """Content of a resume file besides method and optimizer.

    Attributes:
        step: number of steps done.
        extra: additional state of the caller.
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
    """Write a resume file atomically: if the process is killed, the old or the new file is complete.

    Args:
        path: the file; only one rank may write it.
        step: number of steps done.
        method: the bare method, not its DistributedDataParallel wrapper; call after after_step().
        optimizer: its optimizer.
        recipe: training settings, JSON-serializable.
        extra: additional tensors, numbers, strings, lists and dicts.

    Raises:
        ValueError: the file cannot be written; the old file is kept.
    """
    state = {
        "format": FORMAT,
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recipe": _plain(recipe),
        "extra": extra or {},
    }
    save_torch(path, state)


def load_resume(
    path: str | Path, method: Method, optimizer: Optimizer, recipe: dict[str, Any], *, last_step: int | None = None
) -> ResumeState | None:
    """Restore method and optimizer from a file written by `save_resume`.

    Args:
        path: the file. No code in it is executed, and it is never decompressed beyond its own length.
        method: a method of the saved configuration.
        optimizer: its optimizer.
        recipe: must equal the saved recipe.
        last_step: number of steps of the training; a file with a larger step is rejected.

    Returns:
        The step to continue from, or None if there is no file.

    Raises:
        ValueError: the file is damaged, belongs to another recipe, or does not fit the method. Only in the last case,
            state may have been loaded partially.
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
    step = step_of(path, state["step"], last_step)
    try:
        method.load_state_dict(state["method"])
        _keep_kernels(state["optimizer"], optimizer)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    return ResumeState(step=step, extra=state["extra"])


def _read(path: Path) -> dict[str, Any]:
    state = load_torch(path)
    try:
        if state["format"] != FORMAT:
            raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
        for name in ("method", "optimizer", "recipe", "extra"):
            if not isinstance(state[name], dict):
                raise ValueError(f"its {name} is not a dict")
        state["step"]
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(path, error) from error
    return state


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path} is not a whole resume file ({reason}); delete it to start afresh")


def _keep_kernels(saved: dict[str, Any], optimizer: Optimizer) -> None:
    """Keep the kernel options of the running optimizer instead of the saved ones."""
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
