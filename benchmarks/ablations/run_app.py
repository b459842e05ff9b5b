"""Apps run as a user would: an ablation trains by apps/pretrain and measures by apps/evaluate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

APPS = Path(__file__).resolve().parents[2] / "apps"
PRETRAIN, EVALUATE = APPS / "pretrain", APPS / "evaluate"


def run(program: Path, arguments: Sequence[object], *, who: str, log: Path, processes: int = 1) -> None:
    """Run a program to its end; what it prints is in the log.

    Args:
        program: a folder with __main__.py, or a script.
        arguments: of it.
        who: what failed if it fails.
        log: overwritten.
        processes: a GPU each; several are started by torchrun.

    Raises:
        ValueError: it failed; with the line that tells why.
    """
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [*launcher, str(program), *map(str, arguments)]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            failed = process.wait() != 0
        except KeyboardInterrupt:
            process.wait()  # it was interrupted as well, and saves where it stands
            raise
    if failed:
        raise ValueError(f"{who}: {_reason(log)}")


def _reason(log: Path) -> str:
    """The program's own line of error; the last line and where the others are, if it has none."""
    said = log.read_text(errors="replace").strip().splitlines()
    told = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return told[-1] if told else f"{(said or ['nothing said'])[-1]} (see {log})"
