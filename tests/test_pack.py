"""Packing as a user does it, and training from what was packed."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pairdata import Records, write_scenes
from tests.in_process import run_program

SMALL = ["--batch-size", 32, "--precision", "float32", "--device", "cpu", "--epochs", 1]


def run(app: str, *arguments: object, expect: int = 0) -> str:
    """Run an app in this process and return what it printed."""
    return run_program(f"apps/{app}", *arguments, expect=expect)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """64 scenes, and as a view of each but one the picture turned over, interpolated with the next one."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, count=64, seed=0)
    images, views = root / "images", root / "views"
    keys = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    rows = []
    for i, key in enumerate(keys[:-1]):
        for k, columns in enumerate([{}, {"partner_key": keys[i + 1], "alpha": 0.6}]):
            rows.append({"key": key, "k": k, "path": f"{key}.{k}.png", **columns})
            target = views / rows[-1]["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(images / key) as picture:
                picture.rotate(180 - 90 * k).save(target)
    (views / "journals").mkdir()
    (views / "journals" / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return images, views


@pytest.fixture(scope="module")
def records(folders) -> Path:
    images, views = folders
    out = images.parent / "scenes.beton"
    told = run(
        *("pack", images, "--out", out, "--views", views, "--interpolated", views),
        *("--size", 32, "--mode", "raw", "--shard-images", 20, "--verify"),
    )
    assert "64 images, 63 views" in told and "verified" in told
    return out


def test_two_steps_from_records_are_two_steps_from_folders(folders, records, tmp_path):
    images, views = folders
    recipe = ["pretrain", "small-gen-dino", *SMALL]
    run(*recipe, "--data", images, "--views", views, "--interpolated", views, "--out", tmp_path / "folders")
    run(*recipe, "--data", records, "--workers", 2, "--out", tmp_path / "records")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("folders", "records")]
    assert [json.loads(line)["step"] for line in logs[1]] == [1, 2]
    first, second = (load_file(tmp_path / name / "backbone/backbone.safetensors") for name in ("folders", "records"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    gaps = json.loads((tmp_path / "records" / "data_errors.json").read_text())
    assert gaps == {"missing_views": 1, "unreadable": {}}


def test_unreadable_images_are_listed_and_damage_is_repaired(folders, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in "abc":
        Image.new("RGB", (9, 9), (ord(name), 0, 0)).save(images / f"{name}.png")
    (images / "b.png").write_bytes(b"torn")
    options = ["pack", images, "--out", tmp_path / "r", "--size", 8, "--mode", "raw", "--workers", 0]
    told = run(*options, expect=3)
    assert "1 files could not be read" in told
    (line,) = (tmp_path / "r" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"path": str(images / "b.png"), "why": "not an image of a known format"}
    with (tmp_path / "r" / "00000.beton").open("r+b") as file:
        file.seek(int(Records(tmp_path / "r").rows[2]["square"][0]["place"]))
        file.write(b"\7")
    assert "00000.beton: its SHA-256 differs; packing it again" in run(*options, "--verify", expect=3)
    assert "packed again" not in run(*options, "--verify", expect=3)


def one_line(told: str) -> str:
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in told, told
    return lines[0]


def test_mistakes_end_in_one_line(folders, records, tmp_path):
    images, views = folders
    assert "they differ in: " in one_line(run("pack", images, "--out", records, "--size", 40, expect=1))
    write_scenes(tmp_path / "other", count=10, seed=1)
    elsewhere = ["pack", tmp_path / "other", "--out", tmp_path / "r", "--views", views]
    assert "do not match" in one_line(run(*elsewhere, expect=1))
    recipe = ["pretrain", "small-dino", *SMALL, "--out", tmp_path / "run"]
    assert "which contain views" in one_line(run(*recipe, "--data", records, "--views", views, expect=1))
    assert "records of 64 px, got 32 px" in one_line(run(*recipe, "--data", records, "--decode-size", 64, expect=1))
    assert "create records with apps/pack" in one_line(run(*recipe, "--data", tmp_path / "no.beton", expect=1))


@pytest.mark.slow
def test_loaders_are_timed_beside_torchvision_and_lightly():
    pytest.importorskip("lightly", reason="needs the baselines: uv sync --group baselines")
    pytest.importorskip("ffcv", reason="FFCV is not installed (extra ffcv)")
    from benchmarks.throughput import loader

    options = loader.LoaderBenchmark(images=8, batch_size=4, workers=0, rounds=1, steps=1, sizes=(32,))
    rows = loader.measure_loaders(options)
    assert [len(row) for row in rows] == [9] * 4
    assert [row[0].partition(",")[0] for row in rows] == ["squares of 32 px", "pairs of 32 px", "training", "training"]
