"""Images of one and of four channels, 16 bits each, by every job: from TIFFs to views, and training on them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import genviews
import sslzoo
from genviews.evaluation.context import open_on_device
from genviews.evaluation.options import EvalOptions
from genviews.pretraining.channels import fit_channels
from genviews.pretraining.options import DataConfig
from genviews.recipes import get_recipe
from genviews_core.channels import read_channels, read_preview
from genviews_core.multiband import encode_tiff

pytest.importorskip("tifffile")
pytestmark = pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
SMALL = {"epochs": 1, "batch_size": 8, "precision": "float32", "device": "cpu"}
SHORT = {"preset": "32-small", "steps": 2, "batch_size": 4, "device": "cpu"}


def write_tiles(root: Path, channels: int, count: int = 16) -> Path:
    """Two classes of 12-bit tiles: bright spots on a dark ground, in the first or in the last channel."""
    draw, (rows, columns) = np.random.default_rng(0), np.mgrid[:32, :32]
    for number in range(count):
        row, column = draw.integers(8, 24, 2)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (20 if number % 2 else 60))
        pixels = draw.normal(200, 20, (32, 32, channels))
        pixels[..., -(number % 2)] += 3000 * spot
        path = root / ("even", "odd")[number % 2] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_tiff(pixels.clip(0, 4095).astype(np.uint16)))
    return root


@pytest.fixture(scope="module", params=[1, 4])
def channels(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, channels) -> Path:
    folder = tmp_path_factory.mktemp(f"channels{channels}")
    write_tiles(folder / "images", channels)
    return folder


@pytest.fixture(scope="module")
def backbone(folder, channels) -> Path:
    return genviews.pretrain(
        data=folder / "images", recipe="small-simclr", out=folder / "run", channels=channels, **SMALL
    )


@pytest.fixture(scope="module")
def model(folder, backbone) -> Path:
    return genviews.train_generator(folder / "images", folder / "eldm", encoder=backbone, **SHORT)


@pytest.fixture(scope="module")
def views(folder, model) -> Path:
    summary = genviews.generate(folder / "images", folder / "views", model=model, steps=2, device="cpu")
    assert (summary.written, summary.failed) == (16, 0)
    return folder / "views"


def test_the_backbone_records_channels_range_and_normalization(backbone, channels):
    about = json.loads((backbone / "backbone.json").read_text())
    recipe = about["recipe"]
    assert about["architecture"]["in_chans"] == channels == len(recipe["mean"]) == len(recipe["std"])
    assert recipe["mean"] != [0.485, 0.456, 0.406] and len(recipe["value_range"]) == 2 * channels
    assert recipe["augmentation"]["first"]["jitter"][2:] == [0, 0] and recipe["augmentation"]["first"]["gray_p"] == 0
    _, images = sslzoo.resolve_backbone(backbone)
    assert images["value_range"] == tuple(recipe["value_range"])


def test_images_are_embedded_by_the_recorded_channels_and_range(folder, backbone, channels):
    out = genviews.embed(folder / "images", folder / "features.parquet", backbone=backbone, device="cpu")
    table = pq.read_table(out)
    vectors = np.stack(table["vector"].to_numpy())
    network, images = sslzoo.resolve_backbone(backbone)
    import torch

    path = folder / "images" / table["key"][3].as_py()
    pixels = read_channels(path, channels, value_range=images["value_range"])
    mean, std = (torch.tensor(images[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = network(((torch.tensor(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])[0]
    np.testing.assert_allclose(vectors[3], expected, rtol=1e-2, atol=1e-2)


def test_views_have_the_channels_of_their_sources(views, channels):
    rows = pq.read_table(views / "manifest.parquet").to_pylist()
    assert len(rows) == 16 and {Path(row["path"]).suffix for row in rows} == {".png" if channels == 1 else ".tif"}
    for row in rows[:3]:
        pixels = read_channels(views / row["path"], channels)
        assert pixels.shape == (row["height"], row["width"], channels) == (32, 32, channels)
    assert read_preview(views / rows[0]["path"]).shape == (3, 32, 32)


def test_views_are_trained_on_and_evaluated(folder, views, channels):
    out = genviews.pretrain(
        data=folder / "images", recipe="small-simclr", out=folder / "more", views=views, channels=channels,
        pair_weighting="self", knn_test=folder / "images", **SMALL,
    )  # fmt: skip
    assert not (folder / "more" / "data_errors.json").exists()
    results = folder / "results.jsonl"
    images = {"train": folder / "images", "test": folder / "images", "results": results}
    genviews.evaluate(out, device="cpu", **images)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {row["task"] for row in rows} == {"knn", "linear"} and all(0 <= row["value"] <= 100 for row in rows)


def test_a_training_starts_from_weights_of_the_same_channels_or_of_three(folder, backbone, channels, tmp_path):
    same = {"data": folder / "images", "recipe": "small-simclr", "channels": channels, **SMALL}
    genviews.pretrain(out=tmp_path / "same", weights=backbone, **same)
    recorded, first = (
        json.loads((run / "backbone.json").read_text())["recipe"] for run in (tmp_path / "same" / "backbone", backbone)
    )
    assert [recorded[name] for name in ("mean", "std", "value_range")] == [
        first[name] for name in ("mean", "std", "value_range")
    ]
    architecture = {"name": "resnet10", "cifar_stem": True, "stem_stride": 2, "width": 32}
    about = {"method": "simclr", "epoch": 1, "data": "photographs"}
    recipe = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    network = sslzoo.create_backbone(**architecture)
    sslzoo.save_backbone(tmp_path / "rgb", network, architecture=architecture, recipe=recipe, **about)
    changes = {**SMALL, "epochs": 0}
    out = genviews.pretrain(out=tmp_path / "three", weights=tmp_path / "rgb", **(same | changes))
    stem = sslzoo.load_backbone(out).conv1.weight.detach()
    from genviews_core.backbones import adapt_first_layer

    np.testing.assert_array_equal(stem, adapt_first_layer(network.conv1.weight.detach(), channels))


def test_views_start_from_images_too(folder, model, backbone):
    summary = genviews.generate(
        folder / "images", folder / "near", model=model, encoder=str(backbone), from_image=True, strength="0.6",
        steps=2, device="cpu",
    )  # fmt: skip
    assert (summary.written, summary.failed) == (16, 0)


ONE_LINE = {
    "generator": (
        lambda f, b: genviews.generate(f / "images", f / "x", model=f / "eldm", generator="unclip", channels=4),
        "--generator unclip takes RGB images, got --channels 4; train one of your own images",
    ),
    "another number": (
        lambda f, b: genviews.generate(f / "images", f / "x", model=f / "eldm", channels=7, device="cpu"),
        "expected --channels [14], as .* has, got 7",
    ),
    "adaptive": (
        lambda f, b: genviews.generate(f / "images", f / "x", model=f / "eldm", strength="adaptive", device="cpu"),
        "--strength adaptive takes RGB images",
    ),
    "weights": (
        lambda f, b: genviews.pretrain(data=f / "images", recipe="small-simclr", out=f / "x", weights=b, **SMALL),
        "expected --weights for 3 channels, got [14]; give --channels [14]",
    ),
    "pair weighting": (
        lambda f, b: genviews.pretrain(
            data=f / "images", recipe="small-simclr", out=f / "x", channels=4, pair_weighting="exact", **SMALL
        ),
        "--pair-weighting exact takes RGB images, got --channels 4; use self or none",
    ),
    "task": (
        lambda f, b: open_on_device(EvalOptions(backbone=b, results=f / "r.jsonl", device="cpu")),
        "this task reads RGB images, got .* for images of [14] channels",
    ),
    "embed": (
        lambda f, b: genviews.embed(f / "images", f / "x.npy", backbone=b, channels=6, device="cpu"),
        "expected an encoder of images of 6 channels, got .* of [14]",
    ),
    "mean alone": (
        lambda f, b: genviews.pretrain(
            data=f / "images", recipe="small-simclr", out=f / "x", channels=2, mean=(0.5, 0.5), **SMALL
        ),
        "expected both --mean and --std",
    ),
}


@pytest.mark.parametrize("name", ONE_LINE)
def test_what_takes_rgb_alone_says_so_in_one_line(name, folder, backbone, model):
    call, reason = ONE_LINE[name]
    with pytest.raises(ValueError, match=reason) as error:
        call(folder, backbone)
    assert "\n" not in str(error.value)


def test_records_hold_rgb(tmp_path):
    data = DataConfig(images=tmp_path / "a.beton", channels=4)
    with pytest.raises(ValueError, match="records hold RGB images, got --channels 4; give the folder"):
        fit_channels(get_recipe("small-simclr"), data, None, print)


def test_three_channels_change_nothing(tmp_path):
    recipe, data = get_recipe("small-dino"), DataConfig(images=tmp_path)
    assert fit_channels(recipe, data, None, print) == (recipe, data)


def test_given_statistics_are_used_as_they_are(tmp_path):
    given = {"value_range": (0.0, 4095.0), "mean": (0.1, 0.2), "std": (0.3, 0.4)}
    data = DataConfig(images=tmp_path, channels=2, **given)
    recipe, fitted = fit_channels(get_recipe("small-dino"), data, None, lambda line: None)
    plan = recipe.augmentation
    assert fitted == data and recipe.architecture["in_chans"] == 2
    assert {(each.mean, each.std) for each in (plan.first, plan.second)} == {((0.1, 0.2), (0.3, 0.4))}
    rgb = fit_channels(
        get_recipe("small-dino"), DataConfig(images=tmp_path, mean=(0.1,) * 3, std=(0.2,) * 3), None, print
    )
    assert rgb[0].augmentation.first.mean == (0.1,) * 3 and rgb[0].augmentation.first.gray_p > 0


def test_a_gray_png_is_one_channel_too(tmp_path):
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tmp_path / "a.png")
    assert read_channels(tmp_path / "a.png", 1).tolist() == np.full((32, 32, 1), 7).tolist()
