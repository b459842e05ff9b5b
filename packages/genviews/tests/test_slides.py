"""The program on slides, in the layouts of PANDA and BRIGHT: coloured tiles, one of them telling the class."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sslzoo
from genviews.evaluation.options import SlidesOptions
from genviews.evaluation.slides import run as evaluate_slides
from ssl_eval import backbone_hash

GRADES = 3
"""Marked tiles are red, green or blue."""


def write_slide(folder: Path, grade: int, seed: int) -> None:
    """Grey tiles of 16 px, and two of the grade's colour."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    count = int(draw.integers(4, 9))
    for number in range(count):
        pixels = draw.integers(100, 140, (16, 16, 3), np.uint8)
        if number in (1, 3):
            pixels[..., grade] = 255
        Image.fromarray(pixels).save(folder / f"{number}.{'png' if seed % 2 else 'jpg'}")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    lines = ["image_id,data_provider,isup_grade,gleason_score"]
    for number in range(45):
        write_slide(folder / f"tiles/s{number:02}", number % GRADES, number)
        lines.append(f"s{number:02},{'karolinska' if number < 20 else 'radboud'},{number % GRADES},")
    (folder / "train.csv").write_text("\n".join(lines))
    torch.manual_seed(0)
    architecture = {"name": "resnet10", "cifar_stem": True, "width": 4}
    about = {"image_size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    network = sslzoo.create_backbone(**architecture)
    sslzoo.save_backbone(
        folder / "backbone", network, architecture=architecture, method="none", recipe=about, epoch=0, data=""
    )
    return folder


def run(study: Path, written: Path, **changes) -> dict[str, dict]:
    """The results by their metric."""
    options = SlidesOptions(
        backbone=study / "backbone",
        data=study / "tiles",
        labels=study / "train.csv",
        embeddings=study / "kept",
        resume=written / "resume",
        results=written / "results.jsonl",
        protocol="ilse",
        epochs=10,
        device="cpu",
    )
    evaluate_slides(dataclasses.replace(options, **changes))
    lines = [json.loads(line) for line in (written / "results.jsonl").read_text().splitlines()]
    return {line["metric"]: line for line in lines}


def test_panda(study, tmp_path, capsys):
    found = run(study, tmp_path, runs=2)
    assert list(found) == ["accuracy", "balanced_accuracy", "auc", "weighted_f1", "macro_f1", "kappa"]
    assert found["accuracy"]["value"] > 80 and found["kappa"]["value"] > 80  # a third by chance
    line = found["accuracy"]
    assert (line["task"], line["data"]) == ("slides", "tiles")
    assert line["protocol"] == "attention ilse epochs=10 runs=2 held-out=0.2 split=0"
    network, _ = sslzoo.resolve_backbone(study / "backbone")
    assert line["backbone"] == backbone_hash(network)
    assert "standard deviation over 2 runs: accuracy" in capsys.readouterr().out
    kept = study / "kept" / line["backbone"][:12] / "tiles"
    stamps = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(stamps) == 45
    run(study, tmp_path)
    assert stamps == {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    # The kept embeddings are a data set of their own.
    again = run(study, tmp_path / "again", data=kept, runs=2)
    assert again["accuracy"]["value"] == line["value"]


def test_class_folders(study, tmp_path):
    for split, first in (("train", 0), ("test", 24)):
        for number in range(first, first + 24 - first // 2):
            group, subtype = (("BT", "PB"), ("BT", "UDH"), ("MT", "IC"))[number % 3]
            write_slide(tmp_path / f"BRIGHT/{split}/{group}/{subtype}/BRACS_{number}", number % 3, number)
    found = run(study, tmp_path, data=tmp_path / "BRIGHT", labels=None, level="group", epochs=2)
    assert "kappa" not in found and found["macro_f1"]["protocol"] == "attention ilse epochs=2 group"
    assert found["accuracy"]["data"] == "BRIGHT"


def test_mistakes_are_told_before_anything_is_embedded(study, tmp_path):
    def told(text: str, **changes) -> str:
        table = tmp_path / "labels.csv"
        table.write_text(text)
        with pytest.raises(ValueError) as error:
            run(study, tmp_path, labels=table, embeddings=tmp_path / "none", **changes)
        assert "\n" not in str(error.value) and not (tmp_path / "none").exists()
        return str(error.value)

    head, every = "image_id,isup_grade\n", "".join(f"s{number:02},{number % GRADES}\n" for number in range(45))
    assert "expected tiles of slide s99 of" in told(head + every + "s99,0\n")
    assert "got none (1 such slides)" in told(head + every[: -len("s44,2\n")])
    few = head + "".join(f"s{number:02},{number % GRADES}\n" for number in range(3))
    assert "none of" in told(few + "s03,0\n", ignore_unlabeled=True)
    tests = tmp_path / "tests.csv"
    tests.write_text(head + "s02,2\ns04,1\ns03,0\n")
    assert "disjoint training and test slides, got s02" in told(few, test_labels=tests, ignore_unlabeled=True)
    tests.write_text(head + "s04,7\n")
    assert "of the training slides for s04 in" in told(few, test_labels=tests)
    assert "expected a protocol of clam, ilse, got mean" in told(few, protocol="mean")
