"""Training that starts from weights: every source, what is recorded, and what does not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import genviews
import sslzoo
from genviews.pretraining.job import build_method
from genviews.pretraining.weights import open_weights
from pairdata import write_scenes

SHORT = {"batch_size": 8, "precision": "float32", "device": "cpu"}
RECIPE = genviews.get_recipe("small-byol")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_scenes(folder, count=16, seed=0)
    return folder


@pytest.fixture(scope="module")
def backbone(folder) -> Path:
    return genviews.pretrain(data=folder / "images", recipe="small-simsiam", out=folder / "run", epochs=1, **SHORT)


def official_simsiam(path: Path) -> nn.Module:
    """Write a ResNet-18 as facebookresearch/simsiam saves it."""
    torch.manual_seed(5)
    network = sslzoo.create_backbone("resnet18")
    tensors = {f"module.encoder.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {"module.encoder.fc.6.weight": torch.ones(2), "module.predictor.0.weight": torch.ones(2)}
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    return network


def equal(network: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == tensors.keys() and all(torch.equal(own[name], tensors[name]) for name in own)


def start(source, recipe=RECIPE, **changes):
    """Return the method's online and momentum backbones, the recipe and the messages."""
    said: list[str] = []
    recipe, weights = open_weights(replace(recipe, **changes), str(source), said.append)
    method = build_method(recipe, sslzoo.init_distributed({}, "cpu"), weights)
    return method.backbone, method.target.backbone, recipe, said


def test_a_folder_gives_both_networks_their_weights(backbone):
    wanted = sslzoo.load_backbone(backbone).state_dict()
    online, target, recipe, said = start(backbone)
    assert equal(online, wanted) and equal(target, wanted)
    assert recipe == RECIPE and len(said) == 1


def test_a_run_records_its_weights_and_resumes_only_with_them(folder, backbone):
    out = folder / "more"
    made = genviews.pretrain(data=folder / "images", recipe="small-byol", out=out, weights=backbone, epochs=0, **SHORT)
    about = json.loads((made / "backbone.json").read_text())
    first = json.loads((backbone / "backbone.json").read_text())
    assert about["recipe"]["weights"] == {"source": str(backbone), "hash": first["hash"]}
    assert about["hash"] == first["hash"]  # no step was taken
    run = {"data": folder / "images", "recipe": "small-byol", "out": folder / "other", "epochs": 1, **SHORT}
    genviews.pretrain(**run, weights=backbone)
    with pytest.raises(ValueError, match=r"another training.*weights"):
        genviews.pretrain(**run)


def test_an_official_checkpoint_brings_its_architecture(tmp_path):
    wanted = official_simsiam(tmp_path / "checkpoint.pth.tar").state_dict()
    online, target, recipe, said = start(tmp_path / "checkpoint.pth.tar")
    assert equal(online, wanted) and equal(target, wanted)
    assert recipe.backbone == "resnet18" and recipe.augmentation.first.mean == (0.485, 0.456, 0.406)
    assert "backbone resnet18" in said[1] and "2 of 122 tensors" in said[0]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_state_dict_of_a_timm_network_loses_its_classifier(tmp_path, suffix):
    import timm

    torch.manual_seed(1)
    tensors = timm.create_model("test_efficientnet", num_classes=7).state_dict()
    path = tmp_path / f"file.{suffix}"
    torch.save(tensors, path) if suffix == "pth" else safetensors.torch.save_file(tensors, path)
    online, _, recipe, said = start(path, backbone="timm/test_efficientnet")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    assert equal(online, kept) and "2 of" in said[0] and "classifier" in said[0]
    assert recipe.augmentation.second.mean == (0.485, 0.456, 0.406)


def test_positions_are_interpolated_to_the_crops(tmp_path):
    network = sslzoo.create_backbone("timm/vit_tiny_patch16_224", image_size=64)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    online, _, recipe, _ = start(tmp_path / "vit.pth")
    assert recipe.architecture == {"name": "timm/vit_tiny_patch16_224", "image_size": 32}
    assert online.pos_embed.shape[1] == 1 + 4 and torch.equal(online.cls_token, network.cls_token)


def test_torchvision_and_timm_names_are_downloaded(monkeypatch):
    wanted = sslzoo.create_backbone("resnet18").state_dict()

    def downloaded(name, **options):
        assert options == {"weights": "DEFAULT"}
        network = made(name)
        network.load_state_dict(wanted)
        return network

    made = sslzoo.create_backbone
    with monkeypatch.context() as patch:
        patch.setattr("genviews.pretraining.weights.sslzoo.create_backbone", downloaded)
        recipe, weights = open_weights(RECIPE, "torchvision/resnet18", print)
    assert weights is not None and weights.mean == (0.485, 0.456, 0.406)
    assert equal(build_method(recipe, sslzoo.init_distributed({}, "cpu"), weights).backbone, wanted)

    vit = made("timm/vit_tiny_patch16_224", image_size=32)
    images = {"size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr("genviews.pretraining.weights.load_timm", lambda name, size: (vit, images))
    online, _, recipe, _ = start("timm/vit_tiny_patch16_224.augreg_in21k")
    assert equal(online, vit.state_dict()) and recipe.backbone == "timm/vit_tiny_patch16_224"


def renamed(tensors):
    return {f"x{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("other.pth", {"backbone": "resnet18"}, r"missing: conv1\.weight.* and \d+ more; unknown: xconv1"),
        ("other.pth", {}, r"name its network with --backbone"),
        ("whole.pth", {"backbone": "resnet34"}, r"does not fit resnet34: missing: .*; give weights of --backbone resn"),
        ("absent.pth", {}, r"expected --weights with a backbone folder, .*absent\.pth; check the path"),
        ("timm/no_such_network", {}, r"timm has no weights called no_such_network"),
        ("torchvision/alexnet", {}, r"expected a ResNet of torchvision"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, source, changes, message):
    monkeypatch.chdir(tmp_path)
    tensors = sslzoo.create_backbone("resnet18").state_dict()
    torch.save(renamed(tensors), "other.pth")
    torch.save(tensors, "whole.pth")
    with pytest.raises(ValueError, match=message) as error:
        start(source, **changes)
    assert "\n" not in str(error.value)


def test_another_backbone_than_that_of_a_folder_is_refused(backbone):
    with pytest.raises(ValueError, match=r"expected weights of --backbone resnet18, got those of resnet10"):
        start(backbone, backbone="resnet18")


def test_stems_of_other_shapes_are_counted(backbone):
    _, weights = open_weights(RECIPE, str(backbone), print)
    assert weights is not None
    with pytest.raises(ValueError, match=r"got .*of another shape: conv1\.weight"):
        weights.load_into(sslzoo.create_backbone("resnet10", width=16), 32)
