"""The ablation that asks whether every method trains: its table, its margin, and the command as a user runs it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ablations import sanity_check
from genviews.recipes import RECIPES
from pairdata import write_scenes
from ssl_eval import Result, append_result

ROOT = Path(__file__).resolve().parent.parent


def write(path: Path, accuracies: dict[str, tuple[float, ...]]) -> None:
    about = {
        "task": "knn",
        "metric": "top1",
        "protocol": "k=20 T=0.07",
        "data": "d/test",
        "machine": "m",
        "seconds": 1.0,
    }
    for name, values in accuracies.items():
        for seed, value in enumerate(values):
            append_result(path, Result(**about, value=value, backbone=f"{name}-{seed}", seed=seed, recipe=name))


def test_the_margin_is_from_the_encoder_that_a_run_started_from(tmp_path):
    options = sanity_check.SanityCheck(
        data=tmp_path,
        test=tmp_path / "d/test",
        views=tmp_path,
        methods=("byol", "gen-dino"),
        seeds=2,
        margin=3,
        out=tmp_path,
    )
    found = {
        "untrained": (30.0, 40.0),
        "small-byol": (35.0, 41.0),
        "small-byol, views": (33.0, 42.0),
        "small-gen-dino, views": (20.0, 60.0),
    }
    write(tmp_path / "results.jsonl", found)
    rows = sanity_check.sanity_rows(options)
    assert [row[0] for row in rows] == ["untrained", "small-byol", "small-gen-dino"]
    assert rows[1][2] == "+3.00" and rows[1][4] == "+2.50"
    assert rows[2][1:3] == ("", "") and rows[2][4] == "+5.00"
    assert sanity_check.below_margin(options) == ["small-byol, views"]


def test_every_small_recipe_has_its_variants(tmp_path):
    small = {name for name in RECIPES if name.startswith("small-")}
    assert small == {f"small-{method}" for method in sanity_check.METHODS}
    options = sanity_check.SanityCheck(data=tmp_path, test=tmp_path)
    with pytest.raises(ValueError, match="expected --views for gen-dino"):
        next(sanity_check.run_sanity_check(replace(options, methods=("gen-dino",))))
    assert [variant.name for variant in sanity_check.variants(options)] == [
        f"small-{method}" for method in sanity_check.METHODS[:-1]
    ]
    with_views = sanity_check.SanityCheck(data=tmp_path, test=tmp_path, views=tmp_path)
    assert len(sanity_check.variants(with_views)) == 9 + 10


@pytest.mark.slow
def test_the_command_trains_measures_and_judges(tmp_path):
    write_scenes(tmp_path / "scenes", count=128, seed=0)
    images = tmp_path / "scenes" / "images"
    command = [sys.executable, ROOT / "benchmarks" / "ablations", "sanity-check", "--data", images, "--test", images]
    command += ["--methods", "barlow-twins", "--epochs", 1, "--device", "cpu", "--out", tmp_path / "sanity-check"]

    arguments = [str(part) for part in (*command, "--margin", 101)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1 and "small-barlow-twins" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("error: expected at least 101 points more")
    results = (tmp_path / "sanity-check" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["recipe"] for line in results] == ["small-barlow-twins", "untrained"]
