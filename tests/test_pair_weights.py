"""Every recipe learns with weights of pairs, and goes on with them after it was stopped."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("cifar10-simsiam", "cifar10-moco-v2", "cifar10-dino", "cifar10-gen-dino")
SMALL = ["--batch-size", "32", "--precision", "float32", "--device", "cpu", "--epochs", "2"]
BY_ITSELF = ["--pair-weighting", "self", "--gamma", "5", "--pca-interval", "3"]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, programs) -> Path:
    folder = tmp_path_factory.mktemp("every")
    programs("tests/every_quality.py", folder)
    return folder


@pytest.mark.parametrize("quality", ["exact", "self", "distilled"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_method_learns_with_every_quality(trained, recipe, quality):
    [_, weighed] = lines(trained / f"{recipe}-{quality}")
    [_, plain] = lines(trained / f"{recipe}-none")
    assert weighed["step"] == plain["step"] == 2 and weighed["loss"] != plain["loss"]
    assert -2 <= weighed["quality"] <= 2 and 1 / 16 < weighed["effective_share"] < 1
    histogram = weighed["weights"]
    assert sum(histogram["counts"]) == 16 and len(histogram["edges"]) == 11
    assert histogram["edges"][0] < 1 < histogram["edges"][-1]
    assert "quality" not in plain and "weights" not in plain


def test_what_weighs_pairs_is_part_of_the_recipe_where_it_weighs(trained):
    told = {
        quality: json.loads((trained / f"cifar10-dino-{quality}" / "backbone" / "backbone.json").read_text())["recipe"]
        for quality in ("none", "self")
    }
    assert (told["self"]["pair_weighting"], told["self"]["gamma"]) == ("self", 5.0)
    assert "pair_weighting" not in told["none"] and "gamma" not in told["none"]


@pytest.fixture(scope="module")
def scenes(trained) -> Path:
    from pairdata import write_scenes

    write_scenes(trained / "more", count=64, seed=1)
    return trained / "more" / "images"


def test_self_weights_go_on_after_a_stop(scenes, programs, tmp_path):
    """Four steps, and two of them after a kill: the same backbone and the same log."""
    command = ["small-dino", "--data", scenes, *SMALL, *BY_ITSELF]
    programs("apps/pretrain", *command, "--out", tmp_path / "whole")
    resumed = [*command, "--out", tmp_path / "resumed"]
    programs(
        "tests/kill_after_checkpoint.py", 2, ROOT / "apps/pretrain", *resumed, "--checkpoint-seconds", 0, expect=-9
    )
    programs("apps/pretrain", *resumed)
    whole, again = (load_file(tmp_path / name / "backbone" / "backbone.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert lines(tmp_path / "whole")[-1] == lines(tmp_path / "resumed")[-1]
    assert "gamma: 5.0, 2.0" in programs("apps/pretrain", *resumed, "--gamma", 2, expect=1)


def test_two_processes_weigh_their_pairs_together(scenes, programs, tmp_path):
    programs.on_two("apps/pretrain", "small-dino", "--data", scenes, "--out", tmp_path, *SMALL, *BY_ITSELF)
    assert sum(lines(tmp_path)[-1]["weights"]["counts"]) == 32


@pytest.mark.parametrize(("quality", "says"), [("exact", "expected --pca"), ("distilled", "expected --scorer")])
def test_a_missing_file_gives_one_line(scenes, programs, tmp_path, quality, says):
    command = ["small-dino", "--data", scenes, "--out", tmp_path / "out", *SMALL, "--pair-weighting", quality]
    printed = programs("apps/pretrain", *command, expect=1).strip().splitlines()
    assert printed[-1].startswith("error: ") and says in printed[-1]
