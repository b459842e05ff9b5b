"""Run apps as subprocesses: ablations train with apps/pretrain and evaluate with apps/evaluate."""

from pathlib import Path

from ssl_eval import run_program as run

__all__ = ["EVALUATE", "PRETRAIN", "run"]

APPS = Path(__file__).resolve().parents[2] / "apps"
PRETRAIN, EVALUATE = APPS / "pretrain", APPS / "evaluate"
