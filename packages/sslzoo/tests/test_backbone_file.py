import json

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from sslzoo import backbone_hash, create_backbone, load_backbone, resolve_backbone, save_backbone

SMALL = {"name": "resnet10", "cifar_stem": True, "width": 4}


@pytest.fixture
def folder(tmp_path):
    backbone = create_backbone(**SMALL)
    backbone(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    save_backbone(tmp_path / "b", backbone, architecture=SMALL, method="SimSiam", recipe={"lr": 1}, epoch=3, data="x")
    return tmp_path / "b", backbone.eval()


def test_what_is_loaded_is_what_was_saved(folder, seeded):
    path, backbone = folder
    loaded = load_backbone(path)
    images = seeded.normal(1, 2, 3, 16, 16)
    assert torch.equal(loaded(images), backbone(images))
    description = json.loads((path / "backbone.json").read_text())
    assert description["hash"] == backbone_hash(loaded) == backbone_hash(backbone)
    assert (description["method"], description["epoch"], description["architecture"]) == ("SimSiam", 3, SMALL)
    assert {"sslzoo", "torch", "torchvision", "timm"} == description["versions"].keys()


def test_the_names_are_torchvisions(tmp_path):
    backbone = create_backbone("resnet18")
    save_backbone(tmp_path, backbone, architecture={"name": "resnet18"}, method="DINO", recipe={}, epoch=1, data="x")
    tensors = safetensors.torch.load_file(tmp_path / "backbone.safetensors")
    theirs = torchvision.models.resnet18()
    assert {name for name in theirs.state_dict() if not name.startswith("fc.")} == tensors.keys()


def test_the_hash_sees_one_bit():
    backbone = create_backbone(**SMALL)
    before = backbone_hash(backbone)
    backbone.bn1.running_mean[0] += 1e-7
    assert backbone_hash(backbone) != before


@pytest.mark.parametrize("name", ["backbone.json", "backbone.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder[0] / name).unlink()
    with pytest.raises(ValueError, match=f"expected {name} in the backbone folder"):
        load_backbone(folder[0])


def test_missing_and_unknown_names_are_named(folder):
    path = folder[0] / "backbone.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["head.weight"] = tensors.pop("bn1.weight")
    tensors["conv1.weight"] = tensors["conv1.weight"][:2].clone()
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing: bn1\.weight; unknown: head\.weight; wrong shape: conv1\.weight"):
        load_backbone(folder[0])


def test_two_files_of_different_runs_are_refused(folder):
    other = create_backbone(**SMALL)
    safetensors.torch.save_file(other.state_dict(), folder[0] / "backbone.safetensors")
    with pytest.raises(ValueError, match=r"is not the one that backbone\.json describes"):
        load_backbone(folder[0])


def test_a_broken_file_gives_one_line(folder):
    (folder[0] / "backbone.safetensors").write_bytes(b"hello")
    with pytest.raises(ValueError, match="broken backbone"):
        load_backbone(folder[0])


@pytest.mark.parametrize(
    ("name", "options", "features"),
    [
        ("resnet18", {"cifar_stem": True}, 512),
        ("resnet50", {"zero_init_residual": True}, 2048),
        ("resnet10", {}, 256),
        ("resnet10", {"cifar_stem": True, "width": 8, "stem_stride": 2}, 64),
        ("timm/vit_tiny_patch16_224", {"image_size": 32, "patch_size": 8, "depth": 1}, 192),
        ("timm/mobilenetv3_small_050", {"image_size": 32}, 1024),
    ],
)
def test_every_backbone_says_how_many_features_it_has(name, options, features):
    backbone = create_backbone(name, **options).eval()
    assert backbone.num_features == features
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, features)


def test_the_cifar_stem_keeps_the_resolution():
    shapes = []
    backbone = create_backbone("resnet18", cifar_stem=True)
    backbone.layer1.register_forward_hook(lambda _, images, __: shapes.append(images[0].shape))
    backbone(torch.zeros(2, 3, 32, 32))
    assert shapes == [(2, 64, 32, 32)]


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ValueError, match="did you mean resnet50"):
        create_backbone("resnt50")
    with pytest.raises(ValueError, match="timm/vit_small_patch16_224"):
        create_backbone("timm/vit_small_patch16_225")
    with pytest.raises(ValueError, match="has its own stem"):
        create_backbone("timm/resnet18", cifar_stem=True)


def test_a_backbone_opens_from_a_folder_and_from_timm(tmp_path, monkeypatch, seeded):
    images = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    saved = create_backbone(**SMALL).eval()
    save_backbone(tmp_path / "b", saved, architecture=SMALL, method="DINO", recipe=images, epoch=1, data="x")
    opened, about = resolve_backbone(tmp_path / "b")
    assert about == {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    assert backbone_hash(opened) == backbone_hash(saved)

    name = "mobilenetv3_small_050.lamb_in1k"
    theirs = timm.create_model(name, pretrained=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "fetched.pth")
    create = timm.create_model
    overlay = {"file": str(tmp_path / "fetched.pth")}  # instead of timm's server
    monkeypatch.setattr(timm, "create_model", lambda *args, **kw: create(*args, **kw, pretrained_cfg_overlay=overlay))
    opened, about = resolve_backbone(f"timm/{name}")
    assert about == {"size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    views = seeded.normal(1, 2, 3, 64, 64)
    assert torch.equal(opened(views), theirs.forward_head(theirs.forward_features(views), pre_logits=True))
    assert opened.num_features == opened(views).shape[1]


def test_what_is_no_backbone_is_said(tmp_path):
    with pytest.raises(ValueError, match="expected a backbone folder, a checkpoint file or timm/<name>, got"):
        resolve_backbone(tmp_path / "none")
    with pytest.raises(ValueError, match=r"timm has no weights called resnet5; timm\.list_pretrained"):
        resolve_backbone("timm/resnet5")
