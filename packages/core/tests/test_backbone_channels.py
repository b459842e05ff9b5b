"""Backbones for images of other than three channels: saved, loaded, and started from weights of three."""

import json

import pytest
import safetensors.torch
import torch

from genviews_core.backbones import (
    adapt_first_layer,
    backbone_hash,
    backbone_input,
    check_architecture,
    create_backbone,
    described,
    load_backbone,
)

timm = pytest.importorskip("timm", reason="the extra 'backbones' is not installed")

TINY_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 3}
EVERY = [
    {"name": "resnet18"},
    {"name": "resnet18", "cifar_stem": True, "image_size": 32},
    {"name": "resnet10", "width": 4},
    {"name": "resnet10", "width": 4, "cifar_stem": True, "stem_stride": 2},
    {"name": "resnet20"},
    {"name": "widened_resnet", "depth": 50},
    {"name": "moco_vit_small", **TINY_VIT},
    {"name": "dino_vit_tiny", **TINY_VIT},
    {"name": "timm/vit_tiny_patch16_224", **TINY_VIT},
    {"name": "timm/resnet10t"},
]
IMAGES = {"image_size": 32, "mean": [0.5] * 5, "std": [0.2] * 5, "value_range": [0, 4095] * 5}


def write(folder, network, architecture, recipe):
    folder.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "backbone.safetensors")
    about = {"architecture": architecture, "hash": backbone_hash(network), "recipe": recipe}
    (folder / "backbone.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("architecture", EVERY, ids=lambda architecture: architecture["name"])
def test_every_network_takes_any_number_of_channels_and_loads_again(architecture, channels, tmp_path):
    torch.manual_seed(0)
    architecture = {**architecture, "in_chans": channels}
    network = create_backbone(**architecture).eval()
    recipe = {"image_size": 32, "mean": [0.5] * channels, "std": [0.2] * channels}
    loaded = load_backbone(write(tmp_path / "b", network, described(architecture), recipe))
    images = torch.randn(2, channels, architecture.get("img_size", 32), architecture.get("img_size", 32))
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("architecture", EVERY, ids=lambda architecture: architecture["name"])
def test_three_channels_are_the_default_with_the_same_weights(architecture):
    networks = []
    for options in ({}, {"in_chans": 3}):
        torch.manual_seed(0)
        networks.append(backbone_hash(create_backbone(**architecture, **options)))
    assert networks[0] == networks[1]


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 7])
def test_weights_of_three_channels_are_averaged_as_timm_does(channels):
    torch.manual_seed(0)
    three = timm.create_model("resnet10t", num_classes=0)
    weight = three.conv1[0].weight.detach()
    adapted = adapt_first_layer(weight, channels)
    expected = torch.stack([weight[:, band % 3] for band in range(channels)], 1) * 3 / channels
    torch.testing.assert_close(adapted, weight.sum(1, keepdim=True) if channels == 1 else expected)
    gray = torch.rand(2, 1, 8, 8)
    with torch.no_grad():  # an image whose channels are equal gives what it gives in RGB
        ours = torch.conv2d(gray.expand(-1, channels, -1, -1), adapted)
    if channels in (1, 6):
        torch.testing.assert_close(ours, torch.conv2d(gray.expand(-1, 3, -1, -1), weight))


def test_a_folder_tells_channels_and_ranges_of_its_images(tmp_path):
    architecture = {"name": "resnet10", "width": 4, "in_chans": 5}
    folder = write(tmp_path / "b", create_backbone(**architecture), architecture, IMAGES)
    expected = {"size": 32, "mean": (0.5,) * 5, "std": (0.2,) * 5, "value_range": (0.0, 4095.0) * 5}
    assert backbone_input(folder) == expected


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"mean": [0.5] * 3}, "mean: expected 5 numbers"),
        ({"value_range": [0, 1, 2]}, "value_range: expected low and high of 5 channels"),
        ({"value_range": [5, 1]}, "value_range: expected low and high of 5 channels"),
        ({"value_range": ["0", "1"]}, "value_range: expected low and high of 5 channels"),
    ],
)
def test_what_does_not_fit_the_channels_is_refused(change, reason, tmp_path):
    architecture = {"name": "resnet10", "width": 4, "in_chans": 5}
    folder = write(tmp_path / "b", create_backbone(**architecture), architecture, IMAGES | change)
    with pytest.raises(ValueError, match=reason):
        backbone_input(folder)


def test_channels_have_limits():
    for channels in (0, 1000, "4"):
        with pytest.raises(ValueError, match="in_chans of resnet18: expected a whole number from 1 to 256"):
            check_architecture({"name": "resnet18", "in_chans": channels})
