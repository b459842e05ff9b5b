"""Results as JSON lines with machine, versions and commit, written immediately."""

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

PACKAGES = ("torch", "torchvision", "triton", "diffusers", "timm", "lightly", "kornia")
ROOT = Path(__file__).resolve().parents[2]


class Recorder:
    """Append results to one file, safe for concurrent processes.

    Args:
        path: JSON-lines file.
        part: "checks", "evidence" or "speedrun".
    """

    def __init__(self, path: Path, part: str) -> None:
        self.path, self.part = path, part
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, *, about: dict[str, Any] | None = None, **figures: Any) -> None:
        """Append one result and print it.

        Args:
            name: what was measured.
            about: conditions of the measurement, in addition to the fields of every line.
            figures: measured values.
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
    """Return the fields on machine, versions and commit that every line has."""
    return {"machine": ssl_eval.machine(), "versions": versions(), "commit": commit()}


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that affect speed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return GENVIEWS_COMMIT if set, otherwise the commit of this working tree."""
    commit = os.environ.get("GENVIEWS_COMMIT")
    if commit:
        return commit
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a file; none if there is no file."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "part" in found:
            yield found
