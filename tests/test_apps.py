"""Every app as a user runs it: train two steps, be stopped, go on, export, paint views, evaluate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
SMALL = ["--batch-size", "32", "--precision", "float32", "--device", "cpu"]


def run(app: str, *arguments: object, processes: int = 1, expect: int = 0) -> str:
    """Run an app in a process of its own and return what it printed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(ROOT / "apps" / app), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    from pairdata import write_scenes

    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "train", count=64, seed=0)
    write_scenes(root / "test", count=40, seed=1)
    return root


@pytest.fixture(scope="module")
def backbone(scenes) -> Path:
    out = scenes / "runs" / "dino"
    run("pretrain", "small-dino", "--data", scenes / "train/images", "--out", out, "--epochs", 2, *SMALL)
    return out / "backbone"


@pytest.fixture(scope="module")
def generator(scenes, backbone) -> Path:
    out = scenes / "runs" / "eldm"
    options = ["--encoder", backbone, "--out", out, "--preset", "32-small", "--steps", 2, "--batch-size", 8]
    run("train_generator", scenes / "train/images", *options, "--device", "cpu")
    return out


@pytest.fixture(scope="module")
def views(scenes, generator) -> tuple[Path, Path]:
    common = [scenes / "train/images", "--model", generator, "--steps", 2, "--device", "cpu", "--precision", "float32"]
    run("generate", *common, "--out", scenes / "views")
    run("generate", *common, "--out", scenes / "mixed", "--interpolate")
    return scenes / "views", scenes / "mixed"


def test_a_recipe_exports_a_backbone_that_is_evaluated(scenes, backbone):
    results = scenes / "results.jsonl"
    printed = run(
        "evaluate", backbone, "--train", scenes / "train/images", "--test", scenes / "test/images", "--results", results
    )
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["task"] for row in rows] == ["knn", "linear"]
    assert all(0 <= row["value"] <= 100 for row in rows)
    assert "knn" in printed


def test_a_run_that_was_stopped_after_two_steps_ends_like_one_that_was_not(scenes, backbone, tmp_path):
    """Two epochs of two steps each; the first process stops after one epoch's worth of checkpoints."""
    out = tmp_path / "dino"
    command = ["small-dino", "--data", scenes / "train/images", "--out", out, "--epochs", 2, *SMALL]
    killer = [sys.executable, ROOT / "tests" / "stop_after.py", 2, ROOT / "apps" / "pretrain", *command]
    arguments = [str(part) for part in (*killer, "--checkpoint-seconds", 0)]
    stopped = subprocess.run(arguments, capture_output=True, text=True, env=ONE_THREAD)
    assert stopped.returncode == -9, stopped.stdout + stopped.stderr
    assert (out / "resume.pt").exists() and not (out / "backbone").exists()
    run("pretrain", *command)
    whole, resumed = (load_file(folder / "backbone.safetensors") for folder in (backbone, out / "backbone"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_finished_folder_is_kept_for_its_own_recipe(scenes, backbone):
    before = (backbone / "backbone.safetensors").read_bytes()
    command = ["small-dino", "--data", scenes / "train/images", "--out", backbone.parent, *SMALL]
    run("pretrain", *command, "--epochs", 2)
    assert (backbone / "backbone.safetensors").read_bytes() == before
    assert "epochs: 2, 3" in run("pretrain", *command, "--epochs", 3, expect=1)


def test_a_generated_view_for_every_image(scenes, views):
    keys = {p.relative_to(scenes / "train/images").as_posix() for p in (scenes / "train/images").rglob("*.png")}
    for folder in views:
        painted = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
        assert painted == {f"{key}.0.png" for key in keys}
        assert (folder / "manifest.parquet").exists()


def test_gen_dino_learns_from_views_on_two_processes(scenes, views, tmp_path):
    out = tmp_path / "gen-dino"
    data = ["--data", scenes / "train/images", "--views", views[0], "--interpolated", views[1]]
    run("pretrain", "small-gen-dino", *data, "--out", out, "--epochs", 1, *SMALL, processes=2)
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == 2
    assert logged[-1]["disentanglement"] > 0
    assert (out / "backbone" / "backbone.safetensors").exists()


@pytest.mark.parametrize(
    ("app", "arguments", "says"),
    [
        ("pretrain", ["small-dino", "--data", "/no/such/folder"], "/no/such/folder"),
        ("evaluate", ["/no/such/backbone", "--train", ".", "--test", "."], "/no/such/backbone"),
        ("generate", ["/no/such/images", "--out", "x", "--model", "/no/such/model"], "/no/such/model"),
        ("train_generator", ["/no/such/images", "--encoder", "/no/backbone", "--out", "x"], "/no/backbone"),
    ],
)
def test_a_wrong_path_gives_one_line(app, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run(app, *arguments, expect=1).strip().splitlines()
    assert printed[-1].startswith("error: ") and says in printed[-1]
    assert not any("Traceback" in line for line in printed)
