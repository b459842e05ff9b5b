"""Embeddings of a folder as one file, continued after an interruption, and their map."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import genviews
import sslzoo
import viewgen
from genviews.embedding import map_page
from pairdata import write_scenes

RECIPE = {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    write_scenes(folder, count=12, seed=0)
    torch.manual_seed(0)
    architecture = {"name": "resnet10", "cifar_stem": True, "width": 8}
    network = sslzoo.create_backbone(**architecture)
    about = {"architecture": architecture, "method": "none", "recipe": RECIPE, "epoch": 0, "data": "none"}
    sslzoo.save_backbone(folder / "backbone", network, **about)
    return folder


def vectors_of(path):
    table = pq.read_table(path)
    assert table.column_names == ["key", "vector"]
    return table["key"].to_pylist(), np.stack(table["vector"].to_numpy())


def test_parquet_and_array_hold_the_features_of_the_backbone(folder, tmp_path):
    options = {"backbone": folder / "backbone", "device": "cpu", "workers": 0, "batch_size": 5}
    keys, vectors = vectors_of(genviews.embed(folder / "images", tmp_path / "f.parquet", **options))
    assert keys == viewgen.list_images(folder / "images") and vectors.dtype == np.float16
    images = torch.stack([viewgen.read_image(folder / "images" / key, 32) for key in keys])
    with torch.no_grad():
        wanted = sslzoo.load_backbone(folder / "backbone")((images / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(vectors.astype(np.float32), wanted.numpy(), rtol=2e-3, atol=2e-4)
    file = genviews.embed(folder / "images", str(tmp_path / "f.npy"), dtype="float32", **options)
    assert np.load(file).dtype == np.float32 and np.array_equal(np.load(file), vectors.astype(np.float32))
    assert (tmp_path / "f.keys.txt").read_text().splitlines() == keys


def test_an_interrupted_call_goes_on(folder, tmp_path, monkeypatch):
    options = {"backbone": folder / "backbone", "device": "cpu", "workers": 0, "batch_size": 4}
    embed, seen = viewgen.ImageEncoder.__call__, []

    def twice(encoder, images):
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return embed(encoder, images)

    monkeypatch.setattr(viewgen.ImageEncoder, "__call__", twice)
    with pytest.raises(KeyboardInterrupt):
        genviews.embed(folder / "images", tmp_path / "f.parquet", **options)
    assert not (tmp_path / "f.parquet").exists()
    keys, _ = vectors_of(genviews.embed(folder / "images", tmp_path / "f.parquet", **options))
    assert len(keys) == 12 and len(seen) == 4  # two batches, the interrupted one, and that one again


def test_a_map_shows_every_image_and_needs_nothing_else(folder, tmp_path):
    options = {"backbone": folder / "backbone", "device": "cpu", "workers": 0, "map": tmp_path / "map.html"}
    genviews.embed(folder / "images", tmp_path / "f.parquet", map_points=8, thumbnail=8, **options)
    page = (tmp_path / "map.html").read_text()
    points = json.loads(re.search(r'id="points">(.*?)</script>', page, re.DOTALL)[1])
    assert len({point["key"] for point in points}) == 8
    assert all(0 <= point[axis] <= 1 for point in points for axis in "xy")
    assert all(point["src"].startswith("data:image/webp") for point in points)
    assert "http" not in re.sub(r'http-equiv="', "", page)


def test_near_vectors_are_near_on_the_map():
    torch.manual_seed(0)
    vectors = torch.randn(40, 16) * 0.1
    vectors[:20, 0] += 3
    vectors[20:, 1] += 3
    places = map_page.project(vectors.numpy(), seed=0)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(40)
    assert ((distances.argmin(1) < 20) == (np.arange(40) < 20)).all()


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("f.csv", {}, "expected --out with .parquet or .npy, got"),
        ("f.npy", {"batch_size": 0}, "expected --batch-size"),
        ("f.npy", {"maps": "x"}, "got 'maps'; did you mean map"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, out, options, message):
    with pytest.raises(ValueError, match=message):
        genviews.embed(folder / "images", tmp_path / out, backbone=folder / "backbone", **options)


def test_a_map_without_scikit_learn_is_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(map_page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected scikit-learn for --map, got none; run pip install scikit-learn"):
        genviews.embed(folder / "images", tmp_path / "f.npy", backbone=folder / "backbone", map=tmp_path / "m.html")


def test_the_command_says_what_it_wrote(folder, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    good = viewgen.list_images(folder / "images")[0]
    (tmp_path / "images" / "good.png").write_bytes((folder / "images" / good).read_bytes())
    arguments = ["embed", "images", "--backbone", str(folder / "backbone"), "--out", "f.npy", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "genviews", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "f.npy: 1 vectors of" in done.stdout and "could not be read" in done.stderr
