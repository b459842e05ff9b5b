"""Run the GPU tests and measure speed against other libraries, within a time limit.

    uv run --group baselines benchmarks/gpu checks --minutes 4

Checks run in order of importance: the tests marked gpu, training steps against lightly, augmentations against kornia,
and the generators at their real size. Each check is a subprocess with its own time limit, so a failure, an
out-of-memory error or a hang does not affect the others; its output until then is kept. Results are written
immediately.
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

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.check_list import Check, all_checks
from benchmarks.gpu.records import ROOT, Recorder

OUTPUT_TAIL = 2000  # characters kept of the output of a failed program
LEAST = 5.0  # no check is started with fewer seconds left


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Tests on the device, then speed beside other libraries."""

    minutes: float = 4.0
    results: Path = Path(__file__).resolve().parent / "results.jsonl"
    only: tuple[str, ...] = ()
    """Run only checks whose names start with one of these prefixes; default: all."""
    log: Path | None = None
    """File for the full output of the programs; default: the results file with suffix .log."""
    tiny: bool = False
    """Use tiny sizes, for tests; the speeds are meaningless."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(options: Checks) -> None:
    """Run the checks that fit into the time, and record those that were skipped.

    Raises:
        ValueError: no check matches `only`.
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
    """Run one check for at most `seconds`, and record its results as they are printed."""
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
    """Kill a program and its children if it is still running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
