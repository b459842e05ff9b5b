"""Does everything work on this GPU, and how fast is it beside the rivals, within so many minutes.

    uv run --group rivals benchmarks/gpu checks --minutes 4

The most precious first: the tests marked gpu, then a training step at each size beside lightly, augmentations beside
kornia, the generators at their real size. Each is a program of its own with a time limit, so that a failure, a lack of
memory or a hang ends that one alone; what it printed until then is kept. Each result is on the disk at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from budget import Budget
from check_list import Check, all_checks
from records import ROOT, Recorder

OUTPUT_TAIL = 2000  # characters of a failed program's output that are kept
LEAST = 5.0  # seconds: with less, nothing is begun


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Tests on the device, then speed beside the rivals."""

    minutes: float = 4.0
    results: Path = Path(__file__).resolve().parent / "results.jsonl"
    only: tuple[str, ...] = ()
    """Checks whose names begin so; all without."""
    log: Path | None = None
    """File that gets all that the programs print."""
    tiny: bool = False
    """Sizes that say nothing about speed, for a test."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(options: Checks) -> None:
    """Run what there is time for; a line says what was left out.

    Raises:
        ValueError: no check has such a name.
    """
    planned = all_checks(options.device, tiny=options.tiny)
    wanted = [check for check in planned if check.name.startswith(options.only or ("",))]
    if not wanted:
        names = ", ".join(check.name for check in planned)
        raise ValueError(f"expected --only with the beginning of a check's name, got {options.only}; there are {names}")
    budget = Budget(options.minutes)
    log = (options.log or options.results.with_suffix(".log")).resolve()
    for check in wanted:
        if budget.left < max(LEAST, check.least):
            Recorder(options.results, "checks")("left out", about={"check": check.name}, left=budget.left)
            continue
        run_check(check, options.results, min(check.limit, budget.left), log)
    Recorder(options.results, "checks")("checks", seconds=budget.spent)


def run_check(check: Check, results: Path, seconds: float, log: Path) -> None:
    """Run one program for so long at most, its results recorded as they come."""
    record, began = Recorder(results, check.part), time.monotonic()
    lines: list[str] = []
    command = [sys.executable, *check.words]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT, env=env,
        start_new_session=True,
    )  # fmt: skip
    late = threading.Timer(seconds, lambda: end(process))
    late.start()
    try:
        assert process.stdout is not None
        with log.open("a") as kept:
            kept.write(f"== {check.name}\n")
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                lines = [*lines[-40:], line]
                check.take(line, record)
        code = process.wait()
    finally:
        late.cancel()
        end(process)
    taken = time.monotonic() - began
    finish = Recorder(results, "checks")
    if code == 0:
        finish("done", about={"check": check.name}, seconds=taken)
    else:
        why = "out of time" if taken >= seconds else f"exit code {code}"
        finish("not done", about={"check": check.name}, reason=why, seconds=taken, output="".join(lines)[-OUTPUT_TAIL:])


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program with all that it started, if it still runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
