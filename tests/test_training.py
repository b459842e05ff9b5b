"""How a training runs changes nothing of what it learns, and it ends whole, whatever ends it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslzoo.training import WandbSink

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


def near(first: Path, second: Path, **tolerances: float) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.allclose(one[name], other[name], **tolerances) for name in one)


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


@pytest.mark.parametrize(("whole", "parted"), [("watched", "stopped"), ("half", "half-stopped")])
def test_a_signal_ends_a_step_and_the_same_command_goes_on_to_the_last_bit(folder, told, whole, parted):
    assert told[parted].startswith("TrainingInterrupted: stopped by SIGTERM after step 2;")
    assert identical(folder / whole, folder / parted)
    rest = [{name: value for name, value in row.items() if name != "knn"} for row in lines(folder / whole)]
    assert rest == lines(folder / parted)
    saved = [torch.load(folder / name / "resume.pt", weights_only=True) for name in (whole, parted)]
    assert saved[0]["extra"]["scaler"] == saved[1]["extra"]["scaler"]
    for name, tensor in saved[0]["extra"]["probe"].items():
        assert torch.equal(tensor, saved[1]["extra"]["probe"][name])


def test_training_summary_is_logged_before_the_first_step(told):
    assert told["resumed"].splitlines() == [
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
    assert "all 1 steps are already done" in told["few again"].splitlines()[2]
    assert json.loads((folder / "few" / "backbone" / "backbone.json").read_text())["recipe"]["batch_size"] == 32


def test_fp16_learns_what_float32_does_within_its_precision(folder):
    half, full = lines(folder / "half"), lines(folder / "byol")
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in full], rel=0.02)
    assert half[0]["loss"] != full[0]["loss"]
    assert [row["loss_scale"] for row in half] == [256.0, 512.0, 512.0, 1024.0]
    assert "loss_scale" not in full[0]


def test_an_overflow_counts_as_a_step_and_changes_nothing(told):
    """Momentum 0.996 would move the teacher, and the center its tenth."""
    assert told["overflow"] == {"changed": [], "progress": 0.25, "pending": 0, "scale": 2.0**59, "momenta": 0}


def test_faster_kernels_learn_the_same(folder, told):
    assert told["compiled"] == told["fused-resumed"] == ""
    assert near(folder / "plain", folder / "compiled", rtol=1e-4, atol=1e-6)
    assert near(folder / "plain", folder / "fused", rtol=1e-4, atol=1e-6)
    assert torch.load(folder / "fused" / "resume.pt")["optimizer"]["param_groups"][0]["fused"]


def test_activations_computed_again_are_the_same(folder):
    """With half of the blocks dropped at random."""
    assert near(folder / "vit", folder / "checkpointed", rtol=1e-5, atol=1e-7)


def test_parts_of_a_step_are_announced_with_what_they_change(folder, told):
    assert told["parts"].splitlines()[-1] == (
        "2 accumulation steps; computed over one of them only: batch norm statistics"
    )
    assert math.isfinite(lines(folder / "parts")[-1]["loss"])


def test_nan_leaves_the_last_good_checkpoint_and_says_where(folder, told):
    assert told["hot"].startswith("FloatingPointError: NaN or infinity at step 2; by step 2 it is in student.backbone.")
    assert "resume.pt holds step 1: try" in told["hot"]
    saved = torch.load(folder / "hot" / "resume.pt")
    assert saved["step"] == 1
    assert all(tensor.isfinite().all() for tensor in saved["method"].values() if torch.is_tensor(tensor))
    assert [row["step"] for row in lines(folder / "hot")] == [1]


def test_three_looks_in_a_row_find_a_collapse_and_say_it_once(told):
    said = told["collapse"]
    assert [step for step, line in enumerate(said) if line] == [2, 6]
    assert said[2].startswith("collapse at step 2: feature_spread 0, effective_rank 1; try")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("three parts", "3 parts each: choose --batch-size 15 or 18"),
        ("resnet checkpointed", "expected a vision transformer for --checkpoint-activations"),
        ("lars fused", "expected sgd or adamw for the fused option, got lars"),
        ("too few", "expected at least 41 images for 1 x 41 (processes x --accumulation-steps), got 40"),
        ("batch of one", "expected at least 2 images per accumulation step for dino with resnet10, got 1; give"),
        ("other classes", "do not hold the same class folders"),
    ],
)
def test_what_cannot_be_done_gives_one_line(told, asked, says):
    assert told[asked].startswith("ValueError: ") and says in told[asked]
    assert told[asked].strip().count("\n") == 0


def test_curves_go_on_at_weights_and_biases(tmp_path, monkeypatch):
    """By a stand-in for the package, whose run is told what the real one was told off-line."""

    class Stand:
        begun, points = [], []

        def init(self, **options):
            self.begun.append(options)
            return self

        def log(self, scalars, step):
            self.points.append((step, scalars))

        def finish(self):
            self.points.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", Stand())
    for step in (1, 2):
        curves = WandbSink("project", tmp_path, {"lr": 0.1})
        curves.write(step, {"loss": 0.5})
        curves.close()
    first, second = Stand.begun
    assert first == second and first["project"] == "project" and first["resume"] == "allow"
    assert Stand.points == [(1, {"loss": 0.5}), "finished", (2, {"loss": 0.5}), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="expected the package wandb for --wandb"):
        WandbSink("project", tmp_path, {})


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
