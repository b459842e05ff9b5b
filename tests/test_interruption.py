"""Kill -9 at random moments of the whole loop: it ends with the very files of a run that nobody disturbed.

uv run pytest tests/test_interruption.py --kills 20
"""

import hashlib
import json
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
    short = ["--epochs", 4, "--seeds", 1, "--processes", 2, "--generator-steps", 40, "--sampling-steps", 4]
    short += ["--checkpoint-seconds", 1, "--device", "cpu"]
    command = [sys.executable, ROOT / "apps" / "pretrain", "quickstart", *options, *short]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def made(out: Path) -> dict[str, str]:
    """The hash of every file that a run is for; of a log, of all but its speeds."""
    files = {p for pattern in COMPARED for p in out.rglob(pattern) if p.name not in ("pairs.png", "curves.png")}
    return {p.relative_to(out).as_posix(): hashlib.sha256(content(p)).hexdigest() for p in sorted(files)}


def content(path: Path) -> bytes:
    if path.name != "log.jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return json.dumps([{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]).encode()


def kill_until_it_ends(out: Path, seconds: float, moments: random.Random, most: int) -> int:
    """Start a run over and over, killing it at random moments, until it ends or was killed `most` times; the kills."""
    for killed in range(most):
        process = start(out)
        try:
            assert process.wait(timeout=moments.uniform(0.12, 0.5) * seconds) == 0, process.stderr.read().decode()
            return killed
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    last = start(out)
    assert last.wait() == 0, last.stderr.read().decode()
    return most


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_runs_end_like_undisturbed_ones(tmp_path, request):
    from pairdata import write_scenes

    write_scenes(tmp_path / "scenes" / "train", count=256, seed=0)
    write_scenes(tmp_path / "scenes" / "test", count=64, seed=1)
    began = time.monotonic()
    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read().decode()
    seconds = time.monotonic() - began
    expected = made(tmp_path / "whole")
    assert sum(name.startswith("views/") and name.endswith(".png") for name in expected) == 256

    kills, killed, runs, moments = request.config.getoption("--kills"), 0, 0, random.Random(0)
    while killed < kills:
        out = tmp_path / f"killed-{runs}"
        killed += kill_until_it_ends(out, seconds, moments, kills - killed)
        runs += 1
        assert made(out) == expected
        assert not [p for p in out.rglob("*") if p.suffix in (".tmp", ".part", ".partial")]
    print(f"\n{killed} kills over {runs} runs that undisturbed take {seconds:.0f} s: {len(expected)} files identical")
