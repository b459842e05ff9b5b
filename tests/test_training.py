"""Pretraining by a recipe: diagnostics, messages and interruption. sslzoo tests the engine (test_fit.py)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    program = [sys.executable, ROOT / "tests" / "training_variants.py", folder]
    done = subprocess.run(program, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def told(folder) -> dict:
    return json.loads((folder / "told.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "backbone" / "backbone.safetensors")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def identical(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_looking_on_changes_not_a_bit(folder):
    assert identical(folder / "plain", folder / "watched")
    plain, watched = lines(folder / "plain"), lines(folder / "watched")
    assert [row["loss"] for row in plain] == [row["loss"] for row in watched]
    assert "probe" not in plain[0] and all(0 <= row["probe"] <= 100 for row in watched)
    assert ["knn" in row for row in watched] == [False, True, False, True]
    assert all(0 < row["feature_spread"] < 1 and 1 < row["effective_rank"] < 32 for row in watched)
    speeds = [json.loads(line) for line in (folder / "watched" / "speed.jsonl").read_text().splitlines()]
    assert [row["step"] for row in speeds] == [1, 2, 3, 4]
    for row in speeds:  # the same operations in every step: MFU follows the speed
        assert row["mfu"] / row["images_per_second"] == pytest.approx(speeds[0]["mfu"] / speeds[0]["images_per_second"])


def test_a_signal_ends_a_step_and_the_same_command_goes_on_to_the_last_bit(folder, told):
    assert told["stopped"].startswith("TrainingInterrupted: stopped by SIGTERM after step 2;")
    assert identical(folder / "watched", folder / "stopped")
    rest = [{name: value for name, value in row.items() if name != "knn"} for row in lines(folder / "watched")]
    assert rest == lines(folder / "stopped")
    saved = [torch.load(folder / name / "resume.pt", weights_only=True) for name in ("watched", "stopped")]
    assert saved[0]["extra"]["scaler"] == saved[1]["extra"]["scaler"]
    for name, tensor in saved[0]["extra"]["probe"].items():
        assert torch.equal(tensor, saved[1]["extra"]["probe"][name])


def test_training_summary_is_logged_before_the_first_step(told):
    first, checkpoint, *rest = told["resumed"].splitlines()
    assert checkpoint.startswith("the checkpoint, twice that while it is written: about ")
    assert [first, *rest] == [
        "cifar10-dino: 40 images, 2 x 2 steps of 16 images, policy genview",
        "DINO: 19,572 parameters, 41,528 with heads and momentum networks, float32 on cpu; "
        "resuming after step 2, 2 steps to go",
    ]


def test_batch_size_is_reduced_to_the_number_of_images(folder, told):
    """40 images with 16 accumulation steps: batch size 32, also when the run is started again."""
    first, second, *_ = told["few"].splitlines()
    assert first == (
        "40 images do not fill a batch of 64: the batch is 32, the learning rate 6.25e-05 (--lr-scaling linear)"
    )
    assert second == "cifar10-dino: 40 images, 1 x 1 steps of 32 images, policy genview"
    assert "all 1 steps are already done" in told["few again"].splitlines()[3]
    assert json.loads((folder / "few" / "backbone" / "backbone.json").read_text())["recipe"]["batch_size"] == 32


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("three parts", "(1 processes x 3 accumulation steps), got 16; choose --batch-size 15 or 18"),
        ("too few", "expected at least 41 images for 1 x 41 (processes x --accumulation-steps), got 40"),
        ("batch of one", "expected at least 2 images per accumulation step for dino with resnet10, got 1; give"),
        ("other classes", "expected the same class folders in"),
    ],
)
def test_what_cannot_be_done_gives_one_line(told, asked, says):
    assert told[asked].startswith("ValueError: ") and says in told[asked]
    assert told[asked].strip().count("\n") == 0


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    program = [*TORCHRUN, ROOT / "tests" / "ddp_worker.py", folder]
    done = subprocess.run(program, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_two_processes_learn_the_same_from_a_step_in_parts(together):
    whole, *parted = torch.load(together / "parts.pt").values()
    assert len(parted) == 2
    for found in (whole, *parted):  # the keys of one step lie in the queue part by part
        found["queue.keys"] = found["queue.keys"][found["queue.keys"][:, 0].argsort()]
    for found in parted:
        for name, tensor in whole.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_a_nan_of_one_process_ends_both_at_one_step(together):
    first, second = (json.loads((together / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first.startswith("NaN or infinity at step 7 in the loss alone; nothing was saved yet")
    assert second == first


@pytest.mark.slow
def test_a_signal_to_one_process_group_ends_all_after_one_step(together, tmp_path):
    """As a scheduler does it: the processes that decode get the signal, too."""
    out = tmp_path / "out"
    recipe = ["small-dino", "--data", together / "scenes" / "images", "--out", out, "--epochs", 500]
    options = ["--batch-size", 16, "--precision", "float32", "--device", "cpu", "--workers", 1]
    command = [*map(str, [*TORCHRUN, ROOT / "apps" / "pretrain", *recipe, *options])]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    try:
        until = time.monotonic() + 300
        while not ((out / "log.jsonl").exists() and (out / "log.jsonl").read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.killpg(int(children[1]), signal.SIGTERM)
        said = job.communicate(timeout=120)[0]
    finally:
        job.kill()
    step = torch.load(out / "resume.pt", weights_only=True)["step"]
    assert said.count(f"stopped by SIGTERM after step {step}; the same command goes on from there") == 1
    assert "exitcode  : 143" in said
    assert step >= 1 and not (out / "backbone").exists()
