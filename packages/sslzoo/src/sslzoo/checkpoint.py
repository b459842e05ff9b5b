"""Save and resume a method and its optimizer, bit-identically."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from genviews_core.checkpoint import load_checkpoint, restoring, save_checkpoint
from sslzoo.methods.method import Method

KERNELS = ("fused", "foreach", "capturable")
"""Options of torch's optimizers that change speed and not the result."""


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """Content of a resume file besides method and optimizer.

    Attributes:
        step: number of steps done.
        extra: additional state of the caller.
        epochs: number of epochs when the file was written; None if the recipe does not say.
    """

    step: int
    extra: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None


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
    state = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "extra": extra or {}}
    save_checkpoint(path, step=step, settings=recipe, state=state)


def load_resume(
    path: str | Path, method: Method, optimizer: Optimizer, recipe: dict[str, Any], *, last_step: int | None = None
) -> ResumeState | None:
    """Restore method and optimizer from a file written by `save_resume`.

    Args:
        path: the file. No code in it is executed, and it is never decompressed beyond its own length.
        method: a method of the saved configuration.
        optimizer: its optimizer.
        recipe: must equal the saved recipe, but for "epochs", which may be larger now.
        last_step: number of steps of the training; a file with a larger step is rejected.

    Returns:
        The step to continue from, or None if there is no file.

    Raises:
        ValueError: the file is damaged, belongs to another recipe, or does not fit the method. Only in the last case,
            state may have been loaded partially.
    """
    loaded = load_checkpoint(path, recipe, last_step=last_step, may_grow=("epochs",))
    if loaded is None:
        return None
    step, state = loaded
    with restoring(path):
        for name in ("method", "optimizer", "extra"):
            if not isinstance(state[name], dict):
                raise TypeError(f"its {name} is not a dict")
        method.load_state_dict(state["method"])
        _keep_kernels(state["optimizer"], optimizer)
        optimizer.load_state_dict(state["optimizer"])
    return ResumeState(step=step, extra=state["extra"], epochs=state["settings"].get("epochs"))


def _keep_kernels(saved: dict[str, Any], optimizer: Optimizer) -> None:
    """Keep the kernel options of the running optimizer instead of the saved ones."""
    for old, own in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        old.update({name: own[name] for name in KERNELS if name in own})
