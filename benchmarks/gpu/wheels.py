"""The folder of wheels that a bare machine lacks, in the versions of uv.lock.

    uv run benchmarks/gpu wheels --out .whl
    uv run benchmarks/gpu wheels --out .whl --part evidence     # without the rivals and what only checks need

The machine has Python 3.12 on Linux, torch and much else (bare_machine.txt), and no network: `bare_machine.sh` installs
the folder there without looking for anything.
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
"""What each part imports, beside what is there."""
PRESENT = Path(__file__).with_name("bare_machine.txt")
"""Names of packages that the machine's image has, as far as they are met here."""
LEFT_OUT = frozenset(("hydra-core", "omegaconf", "antlr4-python3-runtime"))
"""lightly's command line alone needs them."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LARGEST = 64 * 2**20
"""Bytes that travel to the machine at once, the working tree, the images and the weights of an earlier run included."""
IMAGES = 19 * 10**6  # bytes of CIFAR-10 as the archive that travels beside the wheels


@dataclass(frozen=True, kw_only=True)
class Wheels:
    """Download what a bare machine lacks."""

    out: Path = Path(".whl")
    part: Literal["checks", "evidence"] = "checks"
    python: str = "3.12"


def main(options: Wheels) -> None:
    """Download, and tell what it weighs.

    Raises:
        ValueError: pip failed, or the folder leaves no room for the images.
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
    """NAME==VERSION of what is wanted, and of what that needs, as far as the machine lacks it."""
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
    """By pip, each package alone: nothing is built, nothing resolved."""
    flags = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    flags += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *flags, "--dest", str(out), *needed]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        command[:3] = ["python3", "-m", "pip"]  # uv's environments have none
    if subprocess.run(command, check=False).returncode:
        raise ValueError("expected pip to download the wheels, got an error; see what it printed above")


def tracked_bytes() -> int:
    """Of the files that git knows, which travel too."""
    asked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sum((ROOT / name).stat().st_size for name in asked.stdout.split("\0") if name and (ROOT / name).is_file())
