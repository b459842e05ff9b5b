"""The measurement itself, on bright discs in noise, whose foreground any network of patches can tell."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pairquality
from benchmarks.foreground import measure

OPTIONS = {"share_foreground": 0.25, "skip_border": 0, "batch_size": 7, "seed": 0}


def scenes(count: int = 20, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks: a bright disc of a quarter of the pixels, a little beside the middle."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:size, :size]
    middles = rng.uniform(0.4, 0.6, (count, 2)) * size
    masks = np.stack([np.hypot(down - y, across - x) < 0.282 * size for y, x in middles])
    images = rng.integers(0, 80, (count, 3, size, size)) + 150 * masks[:, None]
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(masks)


def patches(sign: float = 1.0) -> pairquality.FeatureEncoder:
    network = nn.Conv2d(3, 2, 4, 4, bias=False)
    nn.init.constant_(network.weight, sign)
    return pairquality.FeatureEncoder(network, 64, name="patches")


def test_a_network_that_sees_the_object_beats_the_middle_and_the_middle_beats_chance():
    found = measure.measure(patches(), *scenes(), **OPTIONS)
    assert found.sign_right and found.sign_right_per_image == 1 and found.iou_map == found.iou_signed
    assert found.iou_map > 0.85 > found.iou_centre > 0.4 > found.iou_random
    assert found.f_map > 0.9 > found.f_centre > found.f_random == pytest.approx(0.25, abs=0.05)
    assert found.share_object == pytest.approx(0.25, abs=0.01)


def test_a_wrong_sign_is_told():
    images, masks = scenes()
    found = measure.measure(patches(), images, ~masks, **{**OPTIONS, "share_foreground": 0.75})
    assert not found.sign_right and found.sign_right_per_image == 0
    assert found.iou_map < 0.7 and found.iou_signed > 0.9


def test_layers_are_chosen_on_one_half_and_measured_on_the_other():
    network = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 2, 2, 2, bias=False))
    nn.init.constant_(network[1].weight, 1.0)
    encoder = pairquality.FeatureEncoder(network, 64, name="two layers")
    images, masks = scenes()
    found = measure.measure_layers(encoder, ["0", "last"], images, masks, **OPTIONS)
    assert {layer: grid for layer, (grid, _, _) in found.items()} == {"0": (16, 16), "last": (8, 8)}
    for _, chosen_on, reported in found.values():
        assert chosen_on.images == reported.images == 10 and min(chosen_on.iou_map, reported.iou_map) > 0.8
    whole = measure.tokens_of(encoder, ["0", "last"], images, 7)
    torch.testing.assert_close(whole["last"][0], encoder(images))
    pca = pairquality.fit_pca(whole["0"][0][::2].split(7), 0.25, grid=(16, 16))
    assert measure.compare(pca, whole["0"][0][1::2], (16, 16), masks[1::2], seed=0) == found["0"][2]


def test_iou_and_f_by_hand():
    found = torch.tensor([[[1, 1], [0, 0]], [[1, 1], [1, 1]]]).bool()
    masks = torch.tensor([[[1, 0], [1, 0]], [[1, 1], [1, 1]]]).bool()
    assert measure.iou(found, masks) == pytest.approx((1 / 3 + 1) / 2)
    precision = recall = 0.5
    by_hand = 1.3 * precision * recall / (0.3 * precision + recall)
    assert measure.f_measure(found, masks) == pytest.approx((by_hand + 1) / 2)
    assert measure.disc(20, 0.4).float().mean() == pytest.approx(0.4, abs=0.02)


def test_the_command_reads_a_tar_and_appends_results(programs, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for place, (image, mask) in enumerate(zip(*scenes(6), strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "set" / "images" / f"{place}.jpg")
        Image.fromarray(mask.numpy()).save(tmp_path / "set" / "masks" / f"{place}.png")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")

    def run(*arguments: object, expect: int = 0) -> str:
        options = ["--encoder", "random/resnet10t", "--sizes", 96, 128]
        return programs("benchmarks/foreground", *arguments, *options, expect=expect)

    assert "random/resnet10t" in run(tmp_path / "set.tar", "--out", tmp_path / "results.jsonl")
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(result["size"], result["images"]) for result in results] == [(96, 6), (128, 6)]
    (tmp_path / "empty").mkdir()
    refused = run(tmp_path / "empty", expect=1)
    assert refused.strip().splitlines()[-1].startswith("error: ") and "masks" in refused
