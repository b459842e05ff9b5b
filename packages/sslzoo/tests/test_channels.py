"""Backbones for images of other than three channels, in checkpoints and exports."""

import pytest
import timm
import torch
import torchvision

import sslzoo
from sslzoo.export import timm_code, to_detectron2, to_timm, to_torchvision, torchvision_code

NETWORKS = [
    {"name": "resnet18", "in_chans": 4},
    {"name": "resnet18", "cifar_stem": True, "in_chans": 1},
    {"name": "resnet10", "width": 4, "in_chans": 6},
    {"name": "resnet10", "width": 4, "cifar_stem": True, "stem_stride": 2, "in_chans": 2},
    {"name": "timm/vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "depth": 1, "in_chans": 4},
]


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda architecture: architecture["name"])
@pytest.mark.parametrize("convert, code", [(to_torchvision, torchvision_code), (to_timm, timm_code)])
def test_the_exported_code_builds_a_network_with_the_same_features(architecture, convert, code):
    torch.manual_seed(0)
    backbone = sslzoo.create_backbone(**architecture).eval()
    scope = {"torch": torch, "torchvision": torchvision, "timm": timm}
    exec(code(backbone), scope)
    network = scope["network"]
    network.load_state_dict(convert(backbone))
    images = torch.randn(2, architecture["in_chans"], 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), backbone(images), rtol=1e-4, atol=1e-5)


def test_detectron2_takes_rgb_alone():
    with pytest.raises(
        ValueError, match="expected a ResNet for RGB images for detectron2, got resnet18 for 4 channels"
    ):
        to_detectron2(sslzoo.create_backbone("resnet18", in_chans=4))


def test_a_backbone_tells_its_channels(tmp_path):
    architecture = {"name": "resnet10", "width": 4, "in_chans": 4}
    recipe = {"image_size": 32, "mean": (0.1,) * 4, "std": (0.2,) * 4, "value_range": (0, 9) * 4}
    about = {"architecture": architecture, "method": "simclr", "epoch": 1, "data": "tiles"}
    sslzoo.save_backbone(tmp_path / "b", sslzoo.create_backbone(**architecture), recipe=recipe, **about)
    network, images = sslzoo.resolve_backbone(tmp_path / "b")
    assert images == {"size": 32, "mean": (0.1,) * 4, "std": (0.2,) * 4, "value_range": (0.0, 9.0) * 4}
    assert network(torch.zeros(2, 4, 32, 32)).shape == (2, 32)
    assert sslzoo.resolve_backbone(tmp_path / "b", channels=4)[1] == images
    with pytest.raises(
        ValueError, match=r"expected a backbone for images of 3 channels, got .* for 4; leave --channels"
    ):
        sslzoo.resolve_backbone(tmp_path / "b", channels=3)
    with pytest.raises(ValueError, match="mean: expected 4 numbers"):
        sslzoo.save_backbone(tmp_path / "c", network, recipe={"mean": (0.5,) * 3, "std": (0.5,) * 3}, **about)


def test_a_state_dict_tells_its_channels(tmp_path):
    network = sslzoo.create_backbone("resnet18", in_chans=4)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    loaded, images = sslzoo.resolve_backbone(tmp_path / "a.pth")
    assert images["mean"] == (0.5,) * 4
    assert sslzoo.backbone_hash(loaded) == sslzoo.backbone_hash(network)
