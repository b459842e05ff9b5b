"""The program on pixels, in PASCAL VOC's layout: bright and dark halves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sslzoo
from genviews.evaluation.options import SegmentationOptions
from genviews.evaluation.segmentation import run as evaluate_segmentation


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    root = folder / "VOCdevkit/VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(16):
        mask = np.zeros((40, 56), np.uint8)
        mask[:, int(draw.integers(12, 44)) :] = 1 + number % 2
        pixels = 30 + 90 * mask[..., None] + draw.integers(0, 30, (40, 56, 3), np.uint8)
        mask[0] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"JPEGImages/{number}.jpg")
        Image.fromarray(mask).save(root / f"SegmentationClass/{number}.png")
    for split, rows in (("train", range(10)), ("val", range(10, 16))):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{row}\n" for row in rows))
    torch.manual_seed(0)
    architecture = {"name": "resnet10", "cifar_stem": True, "width": 4}
    about = {"image_size": 14, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    network = sslzoo.create_backbone(**architecture)
    sslzoo.save_backbone(
        folder / "backbone", network, architecture=architecture, method="none", recipe=about, epoch=0, data=""
    )
    return folder


def run(data: Path, written: Path, **changes) -> list[dict]:
    options = SegmentationOptions(
        backbone=data / "backbone",
        data=data / "VOCdevkit",
        steps=150,
        batch_size=4,
        layer="layer2",
        resume=written / "resume",
        results=written / "results.jsonl",
        device="cpu",
    )
    evaluate_segmentation(dataclasses.replace(options, **changes))
    return [json.loads(line) for line in (written / "results.jsonl").read_text().splitlines()]


def test_halves_are_told_apart(data, tmp_path, capsys):
    found = run(data, tmp_path)
    assert [line["metric"] for line in found] == ["mIoU", "pixel_accuracy"]
    assert found[0]["value"] > 60 and found[1]["value"] > 75  # 21 classes, of which three occur
    assert found[0]["data"] == "VOCdevkit/val"
    assert found[0]["protocol"] == "linear head crop=32 steps=150 batch_size=4 layer=layer2"
    assert "IoU of the classes: " in capsys.readouterr().out
    (kept,) = (tmp_path / "resume").iterdir()
    assert " segmentation " in kept.name and " linear head crop=32" in kept.name
    again = run(data, tmp_path)  # goes on after the last step
    assert again[2]["value"] == found[0]["value"]
    run(data, tmp_path, train_split="val", steps=1)  # other images: a training of their own
    assert len(list((tmp_path / "resume").iterdir())) == 2


def test_mistakes_are_told(data, tmp_path):
    for line, changes in {
        "expected classes 0 to 1 in .*, got 2": {"classes": 2},
        "expected a list of images at": {"test_split": "test"},
        "--short of at least the crop size, 24 px, got 20": {"crop": 24, "short": 20},
        "expected a layer of .*, got layer9": {"layer": "layer9"},
        "expected at least 2 --classes": {"classes": 1},
        "expected --batch-size of 1 or more, got 0": {"batch_size": 0},
    }.items():
        with pytest.raises(ValueError, match=line) as error:
            run(data, tmp_path, **changes)
        assert "\n" not in str(error.value)
