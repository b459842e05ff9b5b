"""Every job by its Python function, on procedural scenes: from images to a report."""

import dataclasses
import json
from pathlib import Path

import pytest

import genviews
from genviews.overrides import from_keywords, override
from genviews.pretraining.options import DataConfig, PretrainOptions
from pairdata import write_scenes

SMALL = {"epochs": 1, "batch_size": 16, "precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_scenes(folder, count=32, seed=0)
    return folder


@pytest.fixture(scope="module")
def backbone(folder) -> Path:
    return genviews.pretrain(data=folder / "images", recipe="small-simsiam", out=folder / "run", **SMALL)


@pytest.fixture(scope="module")
def views(folder, backbone) -> Path:
    short = {"preset": "32-small", "steps": 2, "batch_size": 4, "device": "cpu"}
    model = genviews.train_generator(folder / "images", folder / "eldm", encoder=backbone, **short)
    summary = genviews.generate(folder / "images", folder / "views", model=model, steps=2, device="cpu")
    assert (summary.written, summary.failed) == (32, 0)
    return folder / "views"


def test_a_finished_training_is_not_repeated(folder, backbone):
    assert backbone == folder / "run" / "backbone"
    log = (folder / "run" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [1, 2]
    again = genviews.pretrain(data=str(folder / "images"), recipe="small-simsiam", out=str(folder / "run"), **SMALL)
    assert again == backbone and (folder / "run" / "log.jsonl").read_text() == log


def test_views_are_trained_on_packed_and_shown(folder, views):
    packed = genviews.pack(folder / "images", folder / "records", views=str(views), size=32, mode="raw", workers=0)
    assert (packed.images, packed.views) == (32, 32)
    out = genviews.pretrain(
        data=folder / "records", recipe="small-dino", out=folder / "more", pair_weighting="self", gamma=2.0, **SMALL
    )
    recipe = json.loads((out / "backbone.json").read_text())["recipe"]
    assert (recipe["pair_weighting"], recipe["gamma"], recipe["batch_size"]) == ("self", 2.0, 16)
    page = genviews.inspect(folder / "images", views, out=folder / "report.html", count=4, tile=16)
    assert page.read_text().count("<figure") or page.stat().st_size > 10_000


def test_a_backbone_is_evaluated(folder, backbone):
    results = folder / "results.jsonl"
    images = {"train": folder / "images", "test": str(folder / "images")}
    genviews.evaluate(backbone, **images, results=results, protocol="dino-knn", k=5, device="cpu", resume=None)
    (line,) = results.read_text().splitlines()
    assert json.loads(line)["task"] == "knn"


def test_recipes_are_listed():
    assert "cifar10-simsiam" in genviews.list_recipes() and len(genviews.list_recipes()) == len(genviews.RECIPES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: genviews.pretrain(data="x", recipe="small-dno"), "got 'small-dno'; did you mean small-dino"),
        (lambda: genviews.pretrain(data="x", epochz=3), "got 'epochz'; did you mean epochs"),
        (lambda: genviews.generate("x", "y", model="z", guidence=1.0), "got 'guidence'; did you mean guidance"),
        (lambda: genviews.evaluate("x", task="retrieva"), "got 'retrieva'; did you mean retrieval"),
        (lambda: genviews.evaluate("x"), "missing"),
        (lambda: genviews.quickstart(sampling_step=3), "got 'sampling_step'; did you mean sampling_steps"),
        (lambda: genviews.pack("x", "y", colour=1), "got 'colour'; choose among"),
        (lambda: genviews.inspect("x", "y", tiles=1), "got 'tiles'; did you mean tile"),
        (lambda: genviews.train_generator("x", "y", encoder="z", step=1), "got 'step'; did you mean steps"),
    ],
)
def test_a_misspelled_option_gets_one_line(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_options_are_set_where_they_belong():
    options = PretrainOptions(
        recipe=genviews.get_recipe("small-dino"), data=DataConfig(images=Path("x")), out=Path("o")
    )
    changed = override(options, {"epochs": 3, "views": "v", "fused": True, "pca": "p", "out": "q"}, job="pretrain")
    assert (changed.recipe.epochs, changed.data.views, changed.runtime.fused) == (3, Path("v"), True)
    assert (changed.quality.pca, changed.out) == (Path("p"), Path("q"))
    assert dataclasses.replace(changed.recipe, epochs=options.recipe.epochs) == options.recipe
    assert from_keywords(DataConfig, {"images": "x"}, job="pretrain") == options.data
