"""Resume files of trainings: one format, written atomically, bound to the settings of the training."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from genviews_core.tensor_files import save_torch

FORMAT = 1
ABSENT = "(absent)"
_BROKEN = (
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)
"""Exceptions of torch.load and load_state_dict for damaged or unsuitable files."""


def save_checkpoint(
    path: str | os.PathLike[str], *, step: int, settings: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Write a resume file atomically: if the process is killed, the old or the new file is complete.

    Args:
        path: the file; its folder is created if missing.
        step: number of steps (or epochs) done.
        settings: settings that a resumed training must share, JSON-serializable.
        state: dicts, lists, tensors, numbers and strings, by name.

    Raises:
        ValueError: the file cannot be written; the old file is kept.
    """
    save_torch(path, {"format": FORMAT, "step": step, "settings": _plain(settings), **state})


def load_checkpoint(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    last_step: int | None = None,
    may_grow: Collection[str] = (),
) -> tuple[int, dict[str, Any]] | None:
    """Load a resume file; no code in it is executed, and it is never decompressed beyond its own length.

    Args:
        path: the file.
        settings: settings of the training, which must equal those in the file.
        last_step: number of steps of the training; a file with a larger step is rejected.
        may_grow: names of numbers in the settings that may be larger now than in the file.

    Returns:
        The number of steps done and the state by name, or None if there is no file. With `may_grow`, the state includes
        the `settings` of the file.

    Raises:
        ValueError: the file is damaged, or belongs to a training with other settings.
    """
    if not Path(path).exists():
        return None
    with restoring(path):
        content = dict(_load(path))
        if content.pop("format", FORMAT) != FORMAT:
            raise ValueError(f"another format than {FORMAT}")
        saved = content.pop("settings", content.pop("recipe", {}))
        if not isinstance(saved, dict):
            raise TypeError("its settings are not a dict")
        step = content.pop("step")
    now = _plain(settings)
    grown = {name: now[name] for name in may_grow if name in saved and name in now and saved[name] < now[name]}
    if differing := _differences(saved | grown, now):
        raise ValueError(
            f"{path} belongs to another training; choose another folder or go back to its settings. "
            f"Differing (file, now): {'; '.join(differing)}"
        )
    if type(step) is not int or step < 0 or (last_step is not None and step > last_step):
        expected = "a step" if last_step is None else f"a step of 0 to {last_step}"
        raise ValueError(f"{path}: expected {expected}, got {str(step)[:40]!r}; delete it to start afresh")
    return step, content | ({"settings": saved} if may_grow else {})


@contextmanager
def restoring(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors raised while a state from the file is restored into one-line ValueErrors."""
    try:
        yield
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if reason.startswith(str(path)):  # already names the file and a remedy
            raise
        raise ValueError(f"{path} is not a whole resume file ({reason}); delete it to start afresh") from error


def _load(path: str | os.PathLike[str]) -> Any:
    """Call `torch.load` on the CPU, with tensors, numbers, text, lists and dicts allowed.

    torch verifies no checksums and unpacks files of any size; `torch.save` itself never compresses. A file whose
    entries are compressed, or larger in total than the file, is therefore rejected before anything is unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if compressed or sum(entry.file_size for entry in entries) > os.path.getsize(path):  # noqa: PTH202
                raise ValueError("it unpacks to more than it contains")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} has a wrong checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); change its permissions") from error


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(settings)))


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return the fields that differ, nested ones by dotted name."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{name}: {json.dumps(old)}, {json.dumps(new)}"]
    differing = []
    for key in sorted(old.keys() | new.keys()):
        dotted = f"{name}.{key}" if name else key
        differing += _differences(old.get(key, ABSENT), new.get(key, ABSENT), dotted)
    return differing
