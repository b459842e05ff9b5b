"""The throughput benchmark runs, at a size that says nothing about speed; and what it compares is the same work."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parent.parent / "benchmarks" / "throughput"


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_is_timed_beside_lightly():
    pytest.importorskip("lightly", reason="needs the rivals: uv sync --group rivals")
    printed = run("step", "--batch-size", "4", "--rounds", "1")
    assert printed.count("SimSiam") == printed.count("MoCo v2") == 2


def test_augmentation_is_timed_beside_torchvision_and_kornia():
    pytest.importorskip("kornia", reason="needs the rivals: uv sync --group rivals")
    printed = run("augmentation", "--batch-size", "4", "--rounds", "1")
    assert "32 -> 32" in printed and "288 -> 224" in printed


def test_both_sides_of_the_step_have_the_same_weights_to_train(monkeypatch):
    pytest.importorskip("lightly", reason="needs the rivals: uv sync --group rivals")
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import step

    def trained(model):
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    for ours, theirs in ((step.our_simsiam, step.their_simsiam), (step.our_moco, step.their_moco)):
        assert trained(ours("cpu")) == pytest.approx(trained(theirs("cpu")), rel=1e-3)
