"""What a folder was begun with; the same in every call that adds to it."""

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def claim(path: Path, values: dict[str, Any], *, holds: str) -> None:
    """Write ``values`` to a JSON file, or compare with those that are there; many workers may do so at once.

    Args:
        path: the file; its folder is made if it is missing.
        values: all that must not change.
        holds: what the folder holds if they have, for the error: "views of other settings".

    Raises:
        ValueError: naming the values that differ.
    """
    values = json.loads(json.dumps(values))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        own.write_text(json.dumps(values, indent=2) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    found = json.loads(path.read_text())
    differing = [name for name in values if found.get(name) != values[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {values[name]}" for name in differing)
        raise ValueError(f"{path.parent} holds {holds} ({told}): choose another folder")
