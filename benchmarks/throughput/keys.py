"""Cost of a million images apart from generating views: listing, resuming, merging journals, verifying."""

from __future__ import annotations

import json
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch

import viewgen
from viewgen.manifest import Row

PER_FOLDER = 1000
PAGE = resource.getpagesize()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of a step, and its peak memory in MB beyond that of the process before."""

    step: str
    seconds: float
    megabytes: float


class Never:
    """A generator that must not be called, because every view exists."""

    name = model_id = model_hash = "never"
    supervision: viewgen.generator.Supervision = "none"
    licence = "none"

    def condition(self, images: torch.Tensor) -> torch.Tensor:
        """See viewgen.Generator."""
        raise AssertionError("all views exist")

    def generate(self, condition: torch.Tensor, *, seeds, strength=None) -> torch.Tensor:
        """See viewgen.Generator."""
        raise AssertionError("all views exist")


def measure_keys(count: int) -> list[Measured]:
    """Create ``count`` empty images and views with a journal in a temporary folder, and measure each step on them."""
    with tempfile.TemporaryDirectory() as folder:
        images, views = Path(folder) / "images", Path(folder) / "views"
        _make_tree(images, views, count)
        steps: dict[str, Callable[[], object]] = {
            "list": lambda: sum(1 for _ in viewgen.list_images(images)),
            "resume": lambda: viewgen.generate_views(images, views, Never()),
            "index": lambda: viewgen.merge_journals(views),
            "verify": lambda: viewgen.verify_views(views),
        }
        return [_measure(name, step) for name, step in steps.items()]


def _make_tree(images: Path, views: Path, count: int) -> None:
    (views / "journals").mkdir(parents=True)
    digest = sha256().hexdigest()
    with (views / "journals" / "00000-of-00001.jsonl").open("w") as journal:
        for index in range(count):
            folder = f"n{index // PER_FOLDER:08d}"
            if index % PER_FOLDER == 0:
                (images / folder).mkdir(parents=True)
                (views / folder).mkdir()
            key = f"{folder}/n{index // PER_FOLDER:08d}_{index * 7919 % 1_000_003:07d}.JPEG"
            (images / key).touch()
            (views / f"{key}.0.png").touch()
            row = Row(
                key=key,
                k=0,
                path=f"{key}.0.png",
                generator="never",
                model="never",
                model_hash="0" * 32,
                seed=viewgen.view_seed(0, key, 0),
                strength=200.0,
                foreground_ratio=0.5,
                partner_key=None,
                alpha=None,
                supervision="none",
                licence="none",
                width=512,
                height=512,
                sha256=digest,
            )
            journal.write(json.dumps(asdict(row)) + "\n")


def _measure(name: str, step: Callable[[], object]) -> Measured:
    before = _resident()
    with _watch() as most:
        began = time.monotonic()
        step()
        seconds = time.monotonic() - began
    return Measured(step=name, seconds=seconds, megabytes=(most[0] - before) / 2**20)


@contextmanager
def _watch() -> Iterator[list[int]]:
    """Sample the resident memory every ten milliseconds and yield a list that holds its maximum."""
    most, done = [_resident()], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], _resident())

    watcher = threading.Thread(target=look)
    watcher.start()
    yield most
    done.set()
    watcher.join()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
