"""Kill -9 at random moments of the whole loop: it ends with the very files of a run that nobody disturbed.

uv run pytest tests/test_interruption.py --kills 20
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("*.safetensors", "*.png", "manifest.parquet", "vectors.f16", "log.jsonl")


def start(out: Path) -> subprocess.Popen:
    scenes = out.parent / "scenes"
    options = ["--data", scenes / "train/images", "--test", scenes / "test/images", "--out", out]
    short = ["--epochs", 4, "--generator-steps", 60, "--checkpoint-seconds", 1, "--device", "cpu"]
    command = [sys.executable, ROOT / "apps" / "pretrain", "loop", *options, *short]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def made(out: Path) -> dict[str, str]:
    """The hash of every file that a run is for."""
    files = {p for pattern in COMPARED for p in out.rglob(pattern) if p.name not in ("pairs.png", "curves.png")}
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_runs_end_like_undisturbed_ones(tmp_path, request):
    from pairdata import write_scenes

    write_scenes(tmp_path / "scenes" / "train", count=512, seed=0)
    write_scenes(tmp_path / "scenes" / "test", count=64, seed=1)
    began = time.monotonic()
    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read().decode()
    seconds = time.monotonic() - began

    kills, killed = request.config.getoption("--kills"), 0
    moments = random.Random(0)
    while killed < kills:
        process = start(tmp_path / "killed")
        try:
            process.wait(timeout=moments.uniform(0.15, 0.6) * seconds)
            break  # it got to its end between two kills
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    last = start(tmp_path / "killed")
    assert last.wait() == 0, last.stderr.read().decode()

    expected = made(tmp_path / "whole")
    assert made(tmp_path / "killed") == expected
    assert sum(name.startswith("views/") and name.endswith(".png") for name in expected) == 512
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    print(f"\n{killed} kills over a run of {seconds:.0f} s")
