"""config.json of every run, --config FILE, and runs that are prolonged."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import genviews
from genviews.cli import pretrain as cli
from genviews.packing import PackOptions
from genviews.run_config import parse_options, write_config
from pairdata import write_scenes
from sslzoo import read_log

RUN = {"recipe": "small-simsiam", "batch_size": 8, "precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    write_scenes(folder, count=16, seed=0)
    genviews.pretrain(data=folder / "images", out=folder / "run", epochs=1, drop_augmentations=("blur",), **RUN)
    return folder


def parsed(monkeypatch, *arguments):
    """Return the options with which the command would train."""
    found = []
    monkeypatch.setattr("genviews.pretraining.job.run", found.append)
    cli.main(list(map(str, arguments)))
    return found[0]


def test_a_run_writes_all_options_and_what_made_it(folder):
    content = json.loads((folder / "run" / "config.json").read_text())
    assert (content["job"], content["recipe"]) == ("pretrain", "small-simsiam")
    options = content["options"]
    assert options["images"] == str(folder / "images") and options["drop_augmentations"] == ["blur"]
    assert (options["epochs"], options["batch_size"], options["weights"], options["pca"]) == (1, 8, None, None)
    assert not {"augmentation", "method", "name"} & options.keys()
    assert content["versions"]["torch"] and content["command"]


def test_a_configuration_gives_the_same_options_and_the_command_line_wins(folder, monkeypatch):
    file = folder / "run" / "config.json"
    same = parsed(monkeypatch, "--config", file)
    assert (same.recipe.name, same.recipe.epochs, same.recipe.batch_size) == ("small-simsiam", 1, 8)
    assert (same.data.images, same.out) == (folder / "images", folder / "run")
    assert same.drop_augmentations == ("blur",)
    other = parsed(monkeypatch, "small-byol", f"--config={file.parent}", "--epochs", 3, "--out", "x")
    assert (other.recipe.name, other.recipe.epochs, other.out) == ("small-byol", 3, Path("x"))
    assert other.recipe.batch_size == 8


@pytest.mark.parametrize("job", ["embed", "pack", "quickstart"])
def test_jobs_of_one_process_write_nothing_in_the_others_of_torchrun(folder, tmp_path, monkeypatch, job):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    calls = {
        "embed": lambda: genviews.embed(folder / "images", tmp_path / "f.npy", backbone=folder / "run" / "backbone"),
        "pack": lambda: genviews.pack(folder / "images", tmp_path / "records"),
        "quickstart": lambda: genviews.quickstart(out=tmp_path / "quickstart"),
    }
    with pytest.raises(ValueError, match=f"expected genviews {job} to run in one process, got 2; start it without"):
        calls[job]()
    assert not list(tmp_path.iterdir())


def test_flat_options_come_back_equal(tmp_path):
    options = PackOptions(images=Path("a"), out=tmp_path, size=32, value_range=(0.0, 9.0))
    write_config(tmp_path, "pack", options)
    assert parse_options(PackOptions, ["--config", str(tmp_path)], job="pack") == options
    changed = parse_options(PackOptions, ["b", "--config", str(tmp_path), "--size", "64"], job="pack")
    assert (changed.images, changed.size, changed.value_range) == (Path("b"), 64, (0.0, 9.0))
    (tmp_path / "own.json").write_text('{"options": {"size": 48}}')
    partial = parse_options(PackOptions, ["b", "--out", "c", "--config", str(tmp_path / "own.json")], job="pack")
    assert (partial.out, partial.size) == (Path("c"), 48)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"options": {"sizes": 1}}', "got 'sizes'; did you mean size"),
        ('{"job": "generate", "options": {}}', "expected a configuration of genviews pack, got one of generate"),
        ("{}", "give the config.json of a run"),
        ("no json", "cannot be read as JSON"),
    ],
)
def test_other_files_are_one_line(tmp_path, content, message):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        parse_options(PackOptions, ["a", "--out", "b", "--config", str(tmp_path / "c.json")], job="pack")


def test_a_misspelled_option_gets_similar_names():
    with pytest.raises(ValueError, match="expected an option of genviews pack, got --sise; did you mean --size"):
        parse_options(PackOptions, ["a", "--out", "b", "--sise", "3"], job="pack")


def test_more_epochs_prolong_a_finished_run(folder):
    out = folder / "longer"
    genviews.pretrain(data=folder / "images", out=out, epochs=1, **RUN)
    backbone = genviews.pretrain(data=folder / "images", out=out, epochs=2, **RUN)
    assert [line["step"] for line in read_log(out / "log.jsonl")] == [1, 2, 4]
    assert json.loads((backbone / "backbone.json").read_text())["epoch"] == 2
    with pytest.raises(ValueError, match=r"another training.*epochs: 2, 1"):
        genviews.pretrain(data=folder / "images", out=out, epochs=1, **RUN)


def test_a_full_disk_is_found_before_training(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(ValueError, match=r"expected .* of free disk for the checkpoint.*free some"):
        genviews.pretrain(data=folder / "images", out=folder / "full", epochs=1, **RUN)
