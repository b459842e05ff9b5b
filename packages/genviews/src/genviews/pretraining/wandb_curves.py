"""The curves of a run at Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genviews_core.files import atomic_write


class WandbCurves:
    """One run there for one folder here, also when it is resumed.

    A resumed run tells some steps again, with the same values; there the first telling stays.

    Args:
        project: where.
        folder: of the run; it keeps the run's id.
        recipe: what is trained.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self, project: str, folder: Path, recipe: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("--wandb needs the package wandb: `uv sync --extra wandb`") from error
        named = folder / "wandb-id"
        if not named.exists():
            atomic_write(named, secrets.token_hex(8).encode())
        self._run = wandb.init(
            project=project,
            id=named.read_text(),
            name=folder.name,
            dir=str(folder),
            config=dict(recipe),
            resume="allow",
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
