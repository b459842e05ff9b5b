"""Download the wheels that a machine without network lacks, in the versions of uv.lock.

    uv run benchmarks/gpu wheels --out .whl
    uv run benchmarks/gpu wheels --out .whl --part evidence     # without the packages that only checks needs

The machine has Python 3.12 on Linux, torch and the packages in bare_machine.txt. `bare_machine.sh` installs the folder
there without network access.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
WANTED = {
    "evidence": ("diffusers", "tyro"),
    "checks": ("diffusers", "tyro", "open-clip-torch", "torch-fidelity", "jinja2", "kornia", "lightly"),
}
"""Packages that each part needs in addition to bare_machine.txt."""
PRESENT = Path(__file__).with_name("bare_machine.txt")
"""Names of relevant packages that the machine already has."""
LEFT_OUT = frozenset(("hydra-core", "omegaconf", "antlr4-python3-runtime"))
"""Only needed by the command line of lightly."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LARGEST = 64 * 2**20
"""Maximum bytes copied to the machine: wheels, working tree, images and weights of an earlier run."""
IMAGES = 19 * 10**6  # bytes of the CIFAR-10 archive copied with the wheels


@dataclass(frozen=True, kw_only=True)
class Wheels:
    """Download the missing wheels."""

    out: Path = Path(".whl")
    part: Literal["checks", "evidence"] = "checks"
    python: str = "3.12"


def main(options: Wheels) -> None:
    """Download the wheels and print their size.

    Raises:
        ValueError: pip failed, or the total size exceeds the limit.
    """
    needed = list(missing(WANTED[options.part]))
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.glob("*.whl"):
        old.unlink()
    download(needed, options.out, options.python)
    size = sum(wheel.stat().st_size for wheel in options.out.glob("*.whl"))
    tree = tracked_bytes()
    left = LARGEST - size - tree - IMAGES
    print(f"{len(needed)} wheels, {size / 1e6:.1f} MB; with the working tree ({tree / 1e6:.1f} MB) and the images of")
    print(f"CIFAR-10 ({IMAGES / 1e6:.0f} MB) {left / 1e6:.1f} MB of {LARGEST / 1e6:.1f} MB are left for weights")
    if left < 0:
        raise ValueError(f"expected at most {LARGEST} bytes in all, got {LARGEST - left}; take --part evidence")


def missing(wanted: Sequence[str]) -> Iterator[str]:
    """Yield NAME==VERSION of the wanted packages and their dependencies that the machine lacks."""
    packages: dict[str, dict[str, Any]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        packages[package["name"]] = package
    seen, coming = {*PRESENT.read_text().split(), *LEFT_OUT}, list(wanted)
    while coming:
        name = coming.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield f"{name}=={packages[name]['version']}"
        coming += [need["name"] for need in packages[name].get("dependencies", ()) if _on_linux(need)]


def _on_linux(need: dict[str, Any]) -> bool:
    marker = need.get("marker", "")
    return "sys_platform == 'win32'" not in marker and "python_full_version < '3.1" not in marker


def download(needed: Sequence[str], out: Path, python: str) -> None:
    """Download wheels with pip, without building packages or resolving dependencies."""
    flags = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    flags += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *flags, "--dest", str(out), *needed]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        command[:3] = ["python3", "-m", "pip"]  # uv environments have no pip
    if subprocess.run(command, check=False).returncode:
        raise ValueError("expected pip to download the wheels, got an error; see what it printed above")


def tracked_bytes() -> int:
    """Return the total size of the files tracked by git."""
    asked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sum((ROOT / name).stat().st_size for name in asked.stdout.split("\0") if name and (ROOT / name).is_file())
