"""Files that are either whole or not there."""

import json
from pathlib import Path
from typing import Any


def replace_bytes(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Write ``data`` to a temporary file on the same disk, then rename it to ``path``."""
    temporary = temporary or path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON to ``path``, atomically."""
    replace_bytes(path, (json.dumps(value, indent=2) + "\n").encode())
