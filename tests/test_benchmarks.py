"""The throughput benchmark runs, at a size that says nothing about speed; and what it compares is the same work."""

import json
import math
import re
import sys

import pytest
import torch
from torchvision.transforms.functional import pil_to_tensor

from pairdata import write_scenes


@pytest.fixture
def run(programs):
    return lambda *arguments: programs("benchmarks/throughput", *arguments)


def test_a_step_is_timed_beside_lightly(run):
    pytest.importorskip("lightly", reason="needs the baselines: uv sync --group baselines")
    words = ("--methods", "SimSiam", "DINO", "--batch-size", "4", "--image-size", "16", "--rounds", "1")
    printed = run("step", *words, "--precisions", "float32", "--lines", "--profile")
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [row["method"] for row in rows] == ["SimSiam", "DINO"]
    assert all(row["ratio"] == row["to lightly's default"] and row["MFU"] == "" for row in rows)
    assert printed.count("Self CPU time total") == 2


def test_augmentation_is_timed_beside_torchvision_and_kornia(run):
    pytest.importorskip("kornia", reason="needs the baselines: uv sync --group baselines")
    printed = run("augmentation", "--batch-size", "4", "--rounds", "1", "--no-per-image", "--lines")
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [row["px"] for row in rows] == ["32 -> 32", "288 -> 224"]
    assert all(float(row["ours, images/s"]) > 0 and row["torchvision PIL"] == "" for row in rows)


def test_both_sides_of_the_step_have_the_same_weights_to_train():
    pytest.importorskip("lightly", reason="needs the baselines: uv sync --group baselines")
    from benchmarks.throughput import step

    def trained(model):
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    assert step.OURS.keys() == step.BASELINES.keys()
    for name, ours in step.OURS.items():
        for backbone in ("resnet18", "vit_small"):
            with torch.device("meta"):
                mine, theirs = ours(step.backbone(backbone, 224)), step.BASELINES[name](step.backbone(backbone, 224))
            assert trained(mine) == pytest.approx(trained(theirs), rel=1e-3), (name, backbone)


@pytest.mark.slow
def test_views_are_timed_beside_the_pipeline(run):
    options = ("--scale", "tiny", "--rounds", "1", "--largest-batch", "2")
    printed = run("views", "--generators", "unclip", *options)
    assert "diffusers' pipeline" in printed and printed.count("x the pipeline") == 2 and "% time" in printed


@pytest.mark.slow
def test_the_other_generators_are_timed_alone():
    from benchmarks.throughput import views

    options = views.ViewsBenchmark(generators=("maskgit",), scale="tiny", rounds=1, largest_batch=2)
    rows = list(views.measure_views(options))
    assert [row[1] for row in rows if row[2] == "1"] == ["from images", "from conditions"]
    assert all(row[0] == "maskgit, tiny, float32" for row in rows)
    assert all(float(row[3]) == pytest.approx(1000 / float(row[4]), rel=0.01) for row in rows)


@pytest.mark.parametrize(
    ("name", "work"), [("icgan", "from images"), ("eldm", "from conditions"), ("eldm-32", "from conditions")]
)
def test_random_weights_are_read_as_official_ones(tmp_path, name, work):
    from benchmarks.throughput import views

    made = views.Ours(name=name.partition("-")[0], **views.save_random(name, "tiny", tmp_path)).prepare(work, 2)()
    assert len(made) == 2 and made.float().std() > 10


@pytest.mark.slow
def test_both_sides_of_unclip_make_the_same_views(tmp_path):
    from benchmarks.throughput import views

    options = {**views.save_random("unclip", "tiny", tmp_path), "noise_level": 200, "steps": 4, "guidance": 10.0}
    ours = views.Ours(name="unclip", **options).prepare("from images", 2)()
    theirs = views.Pipeline(**options, device="cpu", dtype="float32").prepare("from images", 2)()
    drawn = torch.stack([pil_to_tensor(view) for view in theirs])
    assert (ours.int() - drawn.int()).abs().max() <= 1
    assert (ours[0].int() - ours[1].int()).abs().max() > 10


def test_the_real_scale_is_the_official_size():
    from benchmarks.throughput import random_models

    def parameters(shapes):
        return sum(math.prod(shape) for shape in shapes.values())

    # google-research/maskgit's checkpoints at 256 px, counted
    assert parameters(random_models.transformer_shapes(random_models.TransformerSizes())) == 172_457_193
    assert parameters(random_models.tokenizer_shapes(random_models.TokenizerSizes())) == 54_515_587


HUNGRY = """
import os, signal, time


class Hungry:
    def __init__(self, *, device):
        assert device == "cpu"

    def prepare(self, work, batch):
        return lambda: time.sleep(0.3) or (b"x" * batch * 10**8 if batch < 4 else os.kill(os.getpid(), signal.SIGKILL))
"""


def test_batches_grow_until_the_memory_runs_out(monkeypatch, tmp_path):
    (tmp_path / "hungry.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(str(tmp_path))
    from hungry import Hungry

    from benchmarks.throughput import views

    with views.SubprocessTimer(Hungry, {"device": "cpu"}) as held:
        tried, best = views.try_batches(held, "eat", views.ViewsBenchmark(rounds=2))
        held.call("eat", best)  # in a new process
    assert best == 2 and list(tried) == [1, 2]
    assert [measured.peak for measured in tried.values()] == pytest.approx([0.1, 0.2], abs=0.03)


def test_the_baselines_of_the_evaluation_are_as_accurate(run):
    pytest.importorskip("lightly", reason="needs the baselines: uv sync --group baselines")
    pytest.importorskip("sklearn", reason="needs the baselines: uv sync --group baselines")
    printed = run("eval", "--train", "600", "--test", "200", "--width", "512", "--epochs", "2", "--rounds", "1")
    ours, lightly, scikit = (float(found) for found in re.findall(r"\((\d+\.\d+)%\)", printed)[:3])
    assert ours == scikit > 15 and abs(ours - lightly) <= 1


def test_keys_are_counted(run):
    printed = run("keys", "--count", "2000")
    assert all(step in printed for step in ("list", "resume", "index", "verify"))


@pytest.mark.slow
def test_each_scorers_share_of_a_step_is_measured(run):
    printed = run("quality", "--batch-size", "2", "--rounds", "1")
    assert all(name in printed for name in ("exact", "distilled", "self"))


@pytest.mark.slow
def test_a_whole_training_is_timed_beside_a_package_of_another_environment(run, tmp_path, monkeypatch):
    write_scenes(tmp_path, count=8, seed=0)
    (tmp_path / "lightly_train.py").write_text(
        "import torch\n"
        "def pretrain(**options):\n"
        "    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)\n"
        "    for _ in range(options['epochs']):\n"
        "        optimizer.step()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = ("--python", sys.executable, "--data", tmp_path / "images", "--batch-size", 4, "--steps", 1, "--rounds", 1)
    rows = [json.loads(line) for line in run("trainings", *words, "--lines").splitlines() if line.startswith("{")]
    assert [row["side"] for row in rows] == ["genviews", "lightly_train"]
    assert 0 < float(rows[0]["images/s"]) < float(rows[1]["images/s"]) and rows[1]["to LightlyTrain"] == "1.00x"
    assert float(rows[0]["start, s"]) > 0 and float(rows[0]["peak, MB"].replace(",", "")) > 100
