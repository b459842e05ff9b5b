"""What a folder of views was made with; the same in every call that adds to it."""

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def claim_settings(views_root: Path, settings: dict[str, Any]) -> None:
    """Write ``settings.json``, or compare with the one that is there; many workers may do so at once.

    Args:
        views_root: the views.
        settings: all that decides how a view looks, as values that JSON has.

    Raises:
        ValueError: naming the settings that differ.
    """
    settings = json.loads(json.dumps(settings))
    path = views_root / "settings.json"
    own = views_root / f"settings.json.{os.getpid()}.{threading.get_ident()}.tmp"
    if not path.exists():
        own.write_text(json.dumps(settings, indent=2) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    found = json.loads(path.read_text())
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {settings[name]}" for name in differing)
        raise ValueError(f"{views_root} holds views of other settings ({told}): choose another folder")
