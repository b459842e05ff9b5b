"""Every app as a user runs it: train two steps, be stopped, go on, export, paint views, evaluate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--batch-size", "32", "--precision", "float32", "--device", "cpu"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    from pairdata import write_scenes

    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "train", count=64, seed=0)
    write_scenes(root / "test", count=40, seed=1)
    return root


@pytest.fixture(scope="module")
def backbone(scenes, programs) -> Path:
    out = scenes / "runs" / "dino"
    programs("apps/pretrain", "small-dino", "--data", scenes / "train/images", "--out", out, "--epochs", 2, *SMALL)
    return out / "backbone"


@pytest.fixture(scope="module")
def generator(scenes, backbone, programs) -> Path:
    out = scenes / "runs" / "eldm"
    options = ["--encoder", backbone, "--out", out, "--preset", "32-small", "--steps", 2, "--batch-size", 8]
    programs("apps/train_generator", scenes / "train/images", *options, "--device", "cpu")
    return out


@pytest.fixture(scope="module")
def views(scenes, generator, programs) -> tuple[Path, Path]:
    common = [scenes / "train/images", "--model", generator, "--steps", 2, "--device", "cpu", "--precision", "float32"]
    programs("apps/generate", *common, "--out", scenes / "views")
    programs("apps/generate", *common, "--out", scenes / "mixed", "--interpolate")
    return scenes / "views", scenes / "mixed"


def test_a_recipe_exports_a_backbone_that_is_evaluated(scenes, backbone, programs):
    results = scenes / "results.jsonl"
    data = ["--train", scenes / "train/images", "--test", scenes / "test/images"]
    printed = programs("apps/evaluate", backbone, *data, "--results", results)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["task"] for row in rows] == ["knn", "linear"]
    assert all(0 <= row["value"] <= 100 for row in rows)
    assert "knn" in printed


def test_a_run_that_was_stopped_after_two_steps_ends_like_one_that_was_not(scenes, backbone, programs, tmp_path):
    """Two epochs of two steps each; the first process stops after one epoch's worth of checkpoints."""
    out = tmp_path / "dino"
    command = ["small-dino", "--data", scenes / "train/images", "--out", out, "--epochs", 2, *SMALL]
    killer = ["tests/kill_after_checkpoint.py", 2, ROOT / "apps" / "pretrain"]
    programs(*killer, *command, "--checkpoint-seconds", 0, expect=-9)
    assert (out / "resume.pt").exists() and not (out / "backbone").exists()
    programs("apps/pretrain", *command)
    whole, resumed = (load_file(folder / "backbone.safetensors") for folder in (backbone, out / "backbone"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_finished_folder_is_kept_for_its_own_recipe(scenes, backbone, programs):
    before = (backbone / "backbone.safetensors").read_bytes()
    command = ["small-dino", "--data", scenes / "train/images", "--out", backbone.parent, *SMALL]
    programs("apps/pretrain", *command, "--epochs", 2)
    assert (backbone / "backbone.safetensors").read_bytes() == before
    assert "base_lr: 0.002, 0.1" in programs("apps/pretrain", *command, "--epochs", 2, "--base-lr", 0.1, expect=1)


def test_a_generated_view_for_every_image(scenes, views):
    keys = {p.relative_to(scenes / "train/images").as_posix() for p in (scenes / "train/images").rglob("*.png")}
    for folder in views:
        painted = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
        assert painted == {f"{key}.0.png" for key in keys}
        assert (folder / "manifest.parquet").exists()


def test_a_model_without_embeddings_asks_for_its_encoder(scenes, generator, backbone, programs, tmp_path):
    alone = shutil.copytree(generator, tmp_path / "eldm", ignore=shutil.ignore_patterns("embeddings"))
    command = ["apps/generate", scenes / "train/images", "--out", tmp_path / "views", "--model", alone]
    command += ["--steps", 2, "--device", "cpu"]
    assert "give --encoder" in programs(*command, expect=1)
    programs(*command, "--encoder", backbone)
    assert len([*(tmp_path / "views").rglob("*.png")]) == 64


def test_views_that_start_from_their_images_stay_closer_to_them(scenes, generator, backbone, programs, tmp_path):
    images = scenes / "train/images"
    common = [images, "--model", generator, "--encoder", backbone, "--steps", 4, "--guidance", 1, "--device", "cpu"]
    common += ["--from-image"]
    programs("apps/generate", *common, "--out", tmp_path / "views", "--strength", "random:0.1,0.9")
    rows = pq.read_table(tmp_path / "views" / "manifest.parquet").to_pylist()
    distances = {0.1: [], 0.9: []}
    for row in rows:
        view, image = (np.asarray(Image.open(path)) for path in (tmp_path / "views" / row["path"], images / row["key"]))
        distances[row["strength"]].append(np.abs(view.astype(int) - image).mean())
    assert len(rows) == 64 and min(map(len, distances.values())) > 10
    assert np.mean(distances[0.1]) < np.mean(distances[0.9])
    programs("apps/generate", *common, "--interpolate", "--out", tmp_path / "mixed", "--strength", 0.3)
    mixed = pq.read_table(tmp_path / "mixed" / "manifest.parquet").to_pylist()
    assert len(mixed) == 64 and all(row["partner_key"] and 0.3 <= row["alpha"] <= 0.7 for row in mixed)
    wrong = ["apps/generate", *common, "--generator", "unclip", "--out", tmp_path / "wrong"]
    assert "expected --from-image with --generator eldm, got unclip" in programs(*wrong, expect=1)


def test_gen_dino_learns_from_views_on_two_processes(scenes, views, programs, tmp_path):
    out = tmp_path / "gen-dino"
    data = ["--data", scenes / "train/images", "--views", views[0], "--interpolated", views[1]]
    programs.on_two("apps/pretrain", "small-gen-dino", *data, "--out", out, "--epochs", 1, *SMALL)
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
def test_a_wrong_path_gives_one_line(app, arguments, says, programs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = programs(f"apps/{app}", *arguments, expect=1).strip().splitlines()
    assert printed[-1].startswith("error: ") and says in printed[-1]
    assert not any("Traceback" in line for line in printed)
