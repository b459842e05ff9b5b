"""What was measured, a JSON line each, on the disk the moment it is known, with machine, versions and commit."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ssl_eval

RIVALS = ("torch", "torchvision", "triton", "diffusers", "timm", "lightly", "kornia")
ROOT = Path(__file__).resolve().parents[2]


class Recorder:
    """Appends to one file; several processes may do so at once.

    Args:
        path: of the JSON lines.
        part: "checks", "evidence" or "speedrun".
    """

    def __init__(self, path: Path, part: str) -> None:
        self.path, self.part = path, part
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, *, about: dict[str, Any] | None = None, **figures: Any) -> None:
        """Append one result and print it.

        Args:
            name: of what was measured.
            about: how, beside what every line has.
            figures: numbers, or words where there is no number.
        """
        rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in figures.items()}
        line = {"part": self.part, "name": name, "figures": rounded, "about": about or {}, **machine()}
        line["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with self.path.open("ab", buffering=0) as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            os.fsync(file.fileno())
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)


@cache
def machine() -> dict[str, Any]:
    """What every line tells of where it was measured."""
    return {"machine": ssl_eval.machine(), "versions": versions(), "commit": commit()}


def versions() -> dict[str, str]:
    """Of those that speed depends on, as far as they are installed."""
    found = {}
    for name in RIVALS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of this working tree; what GENVIEWS_COMMIT says where there is no repository."""
    commit = os.environ.get("GENVIEWS_COMMIT")
    if commit:
        return commit
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file, those left out that were broken off; none where there is no file."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "part" in found:
            yield found
