"""The loaders and the app, on procedural scenes of 32 px."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sslzoo
from genviews.evaluation.classification import run as measure_classification
from genviews.evaluation.datasets import CenterCropDataset, LoaderConfig, TrainingImages
from genviews.evaluation.options import ClassificationOptions
from genviews.evaluation.run_protocol import at_size
from pairdata import LabeledImages, index_images, write_scenes
from ssl_eval import TransformConfig

LOADER_CONFIG = LoaderConfig(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SMALL = TransformConfig(size=32, resize=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", count=60, seed=0)
    write_scenes(folder / "test", count=20, seed=1)
    torch.manual_seed(0)
    architecture = {"name": "resnet10", "cifar_stem": True, "width": 4}
    about = {"image_size": 32, "mean": LOADER_CONFIG.mean, "std": LOADER_CONFIG.std}
    network = sslzoo.create_backbone(**architecture)
    place = folder / "backbone"
    sslzoo.save_backbone(place, network, architecture=architecture, method="none", recipe=about, epoch=0, data="")
    return folder


def worker(rank: int = 0, size: int = 1) -> sslzoo.DistContext:
    return sslzoo.DistContext(rank=rank, world_size=size, device=torch.device("cpu"))


def training(folder: Path, rank: int = 0, size: int = 1, **changes) -> TrainingImages:
    options = {"batch_size": 8, "seed": 0, "context": worker(rank, size)} | changes
    return TrainingImages(index_images(folder / "train/images"), SMALL, LOADER_CONFIG, **options)


def test_centred_images_are_those_of_the_plain_loader(folder):
    root = folder / "train/images"
    ours = list(CenterCropDataset(index_images(root), SMALL, LOADER_CONFIG, batch_size=25, context=worker()))
    plain = LabeledImages(root, size=32, mean=LOADER_CONFIG.mean, std=LOADER_CONFIG.std, batch_size=25)
    for (images, labels, index), (others, other_labels, other_index) in zip(ours, plain, strict=True):
        torch.testing.assert_close(images, others)
        assert torch.equal(labels, other_labels) and torch.equal(index, other_index)
    shared = [
        CenterCropDataset(index_images(root), SMALL, LOADER_CONFIG, batch_size=9, context=worker(r, 3))
        for r in range(3)
    ]
    seen = torch.cat([index for images in shared for _, _, index in images])
    assert seen.sort().values.tolist() == list(range(60))


def test_bicubic_is_torchvisions(tmp_path):
    from torchvision.transforms import v2

    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/x.png")
    prepared = at_size(TransformConfig(interpolation="bicubic"), 64, None)
    assert (prepared.size, prepared.resize) == (64, 73)
    plain = LoaderConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ((image, _, _),) = CenterCropDataset(index_images(tmp_path), prepared, plain, batch_size=1, context=worker())
    theirs = v2.Compose([v2.Resize(73, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(64)])
    expected = torch.from_numpy(np.array(theirs(Image.fromarray(pixels)))).permute(2, 0, 1) / 255
    torch.testing.assert_close(image[0], expected)


def test_an_epoch_is_the_same_every_time_and_the_next_is_another(folder):
    first, again = ([*training(folder).epoch(3)] for _ in range(2))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(first, again, strict=True))
    other = [*training(folder).epoch(4)]
    assert [len(labels) for _, labels, _ in first] == [8] * 7 + [4]
    orders = [torch.cat([index for _, _, index in epoch]) for epoch in (first, other)]
    assert not torch.equal(*orders) and all(order.sort().values.tolist() == list(range(60)) for order in orders)
    assert not torch.equal(first[0][0][0], first[0][0][1])


def test_processes_share_an_epoch_and_make_as_many_steps(folder):
    alone, *shared = ([*training(folder, rank, size).epoch(0)] for rank, size in ((0, 1), (0, 2), (1, 2)))
    for whole, *parts in zip(alone, *shared, strict=True):
        for which in range(3):
            assert torch.equal(whole[which], torch.cat([part[which] for part in parts]))
    assert {len(training(folder, rank, 8)) for rank in range(8)} == {7}  # the four left over do not fill eight shares
    with pytest.raises(ValueError, match="batch size divisible by the 3 processes, got 8"):
        training(folder, 0, 3)


def evaluate(folder: Path, written: str, **options) -> list[dict]:
    results = folder / f"{written}.jsonl"
    chosen = ClassificationOptions(
        backbone=folder / "backbone", train=folder / "train/images", test=folder / "test/images", results=results,
        resume=folder / "resume", device="cpu",
    )  # fmt: skip
    measure_classification(dataclasses.replace(chosen, **options))
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_every_kind_of_protocol(folder):
    knn = evaluate(folder, "knn", protocol="dino-knn", k=5)
    assert [(row["task"], row["protocol"]) for row in knn] == [("knn", "dino-knn k=5")]
    linear = evaluate(folder, "linear", protocol="simsiam-linear", epochs=2, batch_size=16, name="untrained")
    assert [row["metric"] for row in linear] == ["top1", "top5"]
    assert linear[0]["protocol"] == "simsiam-linear epochs=2 batch=16" and linear[0]["recipe"] == "untrained"
    many = evaluate(folder, "many", protocol="byol-linear", epochs=1, batch_size=16)
    assert {row["protocol"] for row in many} == {"byol-linear epochs=1 batch=16"}
    own = evaluate(folder, "own", protocol="simsiam-linear", epochs=2, batch_size=16, learning_rates=(0.1, 3.0))
    assert {row["protocol"] for row in own} == {"simsiam-linear epochs=2 batch=16 rates=0.1,3"}
    cached = evaluate(folder, "cached", protocol="mocov2-linear", epochs=2, batch_size=16, cached=True)
    assert cached[0]["protocol"] == "mocov2-linear epochs=2 batch=16 cached"
    semi = evaluate(folder, "semi", protocol="swav-semi-10", epochs=2, batch_size=3)
    assert {row["protocol"] for row in semi} == {"swav-semi-10 epochs=2 batch=3 balanced"}
    half = evaluate(folder, "half", protocol="swav-semi-10", epochs=1, batch_size=5, percent=50, head_lr=0.1)
    assert {row["protocol"] for row in half} == {"swav-semi-10 epochs=1 batch=5 percent=50 head=0.1 balanced"}
    root = folder / "train/images"
    keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    (folder / "some.txt").write_text("\n".join(keys[::2]))
    listed = evaluate(
        folder, "listed", protocol="vicreg-semi-10", epochs=1, batch_size=5, label_list=folder / "some.txt"
    )
    assert {row["protocol"] for row in listed} == {"vicreg-semi-10 epochs=1 batch=5 list some.txt"}
    assert all(0 <= row["value"] <= 100 for row in [*knn, *linear, *many, *own, *cached, *semi, *listed])
    assert len(list((folder / "resume").glob("*.pt"))) == 6
    assert {row["data"] for row in [*knn, *semi]} == {f"{folder.name}/test"}


def test_unreadable_test_images_are_skipped_and_counted(folder, tmp_path, capsys):
    shutil.copytree(folder / "test/images", tmp_path / "test")
    lost = sorted(tmp_path.glob("test/*/*"))[3]
    lost.unlink()
    (expected,) = evaluate(folder, "without", protocol="dino-knn", k=5, test=tmp_path / "test")
    assert "left_out" not in expected
    lost.write_bytes(b"no image")
    (found,) = evaluate(folder, "with", protocol="dino-knn", k=5, test=tmp_path / "test")
    assert (found["value"], found["left_out"]) == (expected["value"], 1)
    told = capsys.readouterr().err
    assert "skipped: cannot read the image" in told and "1 unreadable, skipped" in told
    with pytest.raises(ValueError, match=f"^cannot read the image '{lost}'"):
        evaluate(folder, "strict", protocol="dino-knn", k=5, test=tmp_path / "test", strict=True)


def test_a_kept_training_is_of_its_own_images_and_size(folder, tmp_path):
    """A second set of images, another size: neither takes the classifier of the first."""
    common = {"protocol": "simsiam-linear", "epochs": 1, "batch_size": 10, "resume": tmp_path}
    for changes in ({}, {}, {"train": folder / "test/images"}, {"size": 24}, {"bf16": True}):
        found = evaluate(folder, "kept", **common, **changes)
    labels = [row["protocol"].removeprefix("simsiam-linear epochs=1 batch=10") for row in found]
    assert labels == ["", "", "", "", "", "", " size=24", " size=24", " bf16", " bf16"]
    assert found[0]["value"] == found[2]["value"] and len(list(tmp_path.glob("*.pt"))) == 4


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"expected a protocol of dino-knn, .*, got 'dino-nn'"):
        evaluate(folder, "wrong", protocol="dino-nn")
    with pytest.raises(ValueError, match="expected --protocol with --epochs"):
        evaluate(folder, "wrong", epochs=3)
    with pytest.raises(ValueError, match="expected transformer blocks"):
        evaluate(folder, "wrong", protocol="dino-linear", epochs=1)
    (folder / "none.txt").write_text("nowhere.JPEG\n")
    with pytest.raises(ValueError, match=r"1 of 1 images .* are missing, first nowhere\.JPEG"):
        evaluate(folder, "wrong", protocol="swav-semi-1", label_list=folder / "none.txt")
    with pytest.raises(ValueError, match="expected a linear protocol with --learning-rates, got"):
        evaluate(folder, "wrong", protocol="dino-knn", learning_rates=(0.1,))
    with pytest.raises(ValueError, match="expected a kNN protocol with --k, got"):
        evaluate(folder, "wrong", protocol="simsiam-linear", k=3)
    with pytest.raises(ValueError, match="a folder exists where a file is needed"):
        evaluate(folder, "wrong", results=folder)
    index = index_images(folder / "train/images")
    one = [index.key(row) for row in range(len(index)) if index.labels[row] == 0]
    (folder / "one.txt").write_text("\n".join(one))
    with pytest.raises(ValueError, match=f"got none of class {index.classes[1]}; add some to .*one.txt"):
        evaluate(folder, "wrong", protocol="swav-semi-1", label_list=folder / "one.txt")
    (tmp_path / "less" / index.classes[1]).mkdir(parents=True)
    for place in range(len(index.classes)):
        if place != 1:
            (tmp_path / "less" / index.classes[place]).symlink_to(folder / "test/images" / index.classes[place])
    with pytest.raises(ValueError, match=f"got none of class {index.classes[1]} in .*less; add it"):
        evaluate(folder, "wrong", test=tmp_path / "less")
    fixed = {"name": "timm/vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24}
    fixed["num_heads"] = 3
    about = {"image_size": 32, "mean": LOADER_CONFIG.mean, "std": LOADER_CONFIG.std}
    network = sslzoo.create_backbone(**fixed)
    sslzoo.save_backbone(tmp_path / "vit", network, architecture=fixed, method="none", recipe=about, epoch=0, data="")
    with pytest.raises(ValueError, match=r"takes images of 48 x 48 px, got .*vit \(.*give --size"):
        evaluate(folder, "wrong", backbone=tmp_path / "vit", size=48)
    for changes in ({"k": 0}, {"size": 0}, {"resize": -1}):
        with pytest.raises(ValueError, match=f"expected --{next(iter(changes))} of 1 or more"):
            evaluate(folder, "wrong", **changes)
    with pytest.raises(ValueError, match=r"expected finite --learning-rates above 0, got -1"):
        evaluate(folder, "wrong", protocol="simsiam-linear", learning_rates=(-1.0, 1.0))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/broken.jpg").write_bytes(b"no image")
    broken = CenterCropDataset(index_images(tmp_path), SMALL, LOADER_CONFIG, batch_size=1, context=worker())
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        list(broken)
