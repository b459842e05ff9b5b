"""Checkpoints in the formats of lightly, solo-learn, LightlyTrain, DINOv2 and torch's wrappers, of a known network.

The names were read from lightly-ai/lightly@e8d317f, vturrisi/solo-learn@9187ea3, lightly-ai/lightly-train@8f5a75c and
facebookresearch/dinov2@b8931f7.
"""

import sys

import pytest
import timm
import torch
from torch import nn

from sslzoo import create_backbone, load_backbone, load_official_checkpoint
from sslzoo.cli import main
from sslzoo.official.key_mapping import CHILDREN, from_dinov2

HEAD = {"0.weight": torch.zeros(8, 512), "0.bias": torch.zeros(8)}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = create_backbone("resnet18").eval()
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.add_(0.2 * torch.rand_like(tensor))
    return network


@torch.no_grad()
def features(network: nn.Module, size: int = 64) -> torch.Tensor:
    return network(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)))


def under(prefix: str, tensors: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def numbered(tensors: dict) -> dict:
    """Rename the tensors of a ResNet as in nn.Sequential(*children)."""
    return {".".join([str(CHILDREN.index(name.split(".")[0])), *name.split(".")[1:]]): t for name, t in tensors.items()}


def other(tensors: dict) -> dict:
    """Return different tensors, for the branch that is not loaded."""
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def moco(t: dict) -> dict:
    queue = {"queue": torch.zeros(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    heads = under("encoder_q.fc.", {"weight": torch.zeros(8, 512), "bias": torch.zeros(8)})
    return under("encoder_q.", t) | heads | under("encoder_k.", other(t)) | queue


def dino(t: dict) -> dict:
    return under("backbone.", t) | under("head.last_layer.weight_", {"g": torch.zeros(16, 1), "v": torch.zeros(16, 4)})


def lightning(tensors: dict) -> dict:
    return {"epoch": 3, "global_step": 9, "state_dict": tensors, "hyper_parameters": {"lr": 0.1}, "loops": {}}


FILES = {
    "lightly": (
        "lightly",
        lambda t: lightning(
            under("backbone.", t) | under("projection_head.layers.", HEAD) | under("online_classifier.linear.", HEAD)
        ),
    ),
    "lightly-sequential": (
        "lightly",
        lambda t: lightning(
            under("backbone.", numbered(t)) | under("projection_head.layers.", HEAD)
            | under("backbone_momentum.", numbered(other(t))) | under("projection_head_momentum.layers.", HEAD)
            | {"criterion.memory_bank.bank": torch.zeros(2)}
        ),
    ),
    "lightly-dino": (
        "lightly-teacher",
        lambda t: lightning(
            under("student_backbone.", numbered(other(t))) | under("student_head.", HEAD)
            | under("teacher_backbone.", numbered(t)) | under("teacher_head.", HEAD)
            | {"criterion.center": torch.zeros(2)}
        ),
    ),
    "solo-learn": (
        "solo-learn",
        lambda t: lightning(
            under("backbone.", t) | under("classifier.", HEAD) | under("projector.", HEAD)
            | under("momentum_backbone.", other(t)) | under("momentum_projector.", HEAD) | {"queue": torch.zeros(2)}
        ),
    ),
    "compiled": ("bare-state-dict", lambda t: {"state_dict": under("_orig_mod.", t)}),
    "doubly-wrapped": ("bare-model", lambda t: {"model": under("module.module._orig_mod.", t)}),
    "compiled-inside": ("simsiam", lambda t: {"state_dict": under("module.encoder._orig_mod.", t)
        | {"module.encoder.fc.6.bias": torch.zeros(1), "module.predictor.0.weight": torch.zeros(1)}}),
    "moco-without-container": ("moco-v1", lambda t: under("module.", moco(t))),
    "moco-as-model": ("moco-v1", lambda t: {"model": moco(t)}),
    "dino-student": ("dino-student", lambda t: {"student": under("module.", dino(t)), "epoch": 3}),
    "dino-both": ("dino", lambda t: {"student": under("module.", dino(other(t))), "teacher": dino(t)}),
    "lightly-train-export": ("bare", lambda t: t | {"fc.weight": torch.zeros(5, 512), "fc.bias": torch.zeros(5)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_features_match_the_checkpoint(name, network, tmp_path):
    layout, content = FILES[name]
    torch.save(content(network.state_dict()), tmp_path / "a.ckpt")
    backbone, about = load_official_checkpoint(tmp_path / "a.ckpt")
    assert about["recipe"]["source"]["layout"] == layout
    assert torch.equal(features(backbone), features(network))


def test_solo_learn_cifar_stem_has_padding_two(tmp_path):
    network = create_backbone("resnet18", cifar_stem=True).eval()
    network.conv1.padding = (2, 2)
    torch.save(lightning(under("backbone.", network.state_dict()) | under("classifier.", HEAD)), tmp_path / "a.ckpt")
    backbone, about = load_official_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(features(backbone, 32), features(network, 32))
    assert about["architecture"] == {"name": "resnet18", "cifar_stem": True, "stem_padding": 2}
    assert about["recipe"]["image_size"] == 32


def test_unknown_prefix_is_suggested_and_accepted(network, tmp_path, monkeypatch, capsys):
    tensors = under("net.trunk.", network.state_dict()) | under("net.extra.", HEAD)
    torch.save(lightning(tensors), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"begin with net\.trunk\.; choose one with --prefix net\.trunk\."):
        load_official_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"no tensor whose name begins with other\."):
        load_official_checkpoint(tmp_path / "a.ckpt", prefix="other")
    options = ["--prefix", "net.trunk", "--mean", "0.5", "0.5", "0.5", "--image-size", "64"]
    monkeypatch.setattr(
        sys, "argv", ["sslzoo", "import", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "b"), *options]
    )
    main()
    assert "images of 64 px, mean [0.5, 0.5, 0.5]" in capsys.readouterr().out
    assert torch.equal(features(load_backbone(tmp_path / "b")), features(network))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_tensors_are_rejected_unless_allowed(value, network, tmp_path, monkeypatch):
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["layer2.0.bn1.weight"][3] = value
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"NaN or infinity \(in: layer2\.0\.bn1\.weight\); .*--allow-nonfinite"):
        load_official_checkpoint(tmp_path / "a.pth")
    backbone, _ = load_official_checkpoint(tmp_path / "a.pth", allow_nonfinite=True)
    assert not backbone.state_dict()["layer2.0.bn1.weight"].isfinite().all()
    torch.save(
        network.state_dict() | {"fc.weight": torch.full((2, 512), value), "fc.bias": torch.zeros(2)}, tmp_path / "b.pth"
    )
    load_official_checkpoint(tmp_path / "b.pth")  # an ignored head may hold NaN


def test_bare_vision_transformer_uses_timm_mean_and_std(tmp_path):
    network = create_backbone("timm/vit_tiny_patch16_224", image_size=32)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    recipe = load_official_checkpoint(tmp_path / "a.pth")[1]["recipe"]
    assert (recipe["image_size"], recipe["mean"], recipe["std"]) == (32, [0.5] * 3, [0.5] * 3)
    assert load_official_checkpoint(tmp_path / "a.pth", format="dino-backbone")[1]["recipe"]["mean"] == [
        0.485,
        0.456,
        0.406,
    ]


@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
def test_named_timm_network_drops_only_its_classifier(name, tmp_path):
    network = timm.create_model(name, num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    backbone, _ = load_official_checkpoint(tmp_path / "a.pth", f"timm/{name}")
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 64)
        assert torch.equal(backbone(images), network.forward_head(network.forward_features(images), pre_logits=True))


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_checkpoints_match_timm(registers, tmp_path):
    """Compare with timm's conversion, whose features were checked to equal the official code's bit for bit."""
    reg = "reg4_" if registers else ""
    network = timm.create_model(f"vit_small_patch14_{reg}dinov2", num_classes=0, img_size=28)
    theirs = dict(network.state_dict()) | {"mask_token": torch.zeros(1, 384)}
    if registers:
        theirs["register_tokens"] = theirs.pop("reg_token")
        theirs["pos_embed"] = torch.cat([torch.full((1, 1, 384), 0.5), theirs["pos_embed"]], dim=1)
        theirs["cls_token"] = theirs["cls_token"] - 0.5
    chunked = {n.replace("blocks.", "blocks.1.") if n.startswith("blocks.") else n: t for n, t in theirs.items()}
    torch.save(chunked, tmp_path / "dinov2.pth")
    backbone, about = load_official_checkpoint(tmp_path / "dinov2.pth")
    assert about["method"] == "DINOv2" and about["architecture"]["image_size"] == 28
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[name], tensor, rtol=0, atol=1e-6)
    expected = timm.models.vision_transformer._convert_dinov2(dict(theirs), network)
    assert {n: t.shape for n, t in from_dinov2(theirs).items()} == {n: t.shape for n, t in expected.items()}


def test_lightly_train_checkpoints_suggest_the_export(tmp_path, monkeypatch):
    module = type(sys)("lightly_train")
    exec("class Model: pass", module.__dict__)
    module.Model.__module__ = "lightly_train"
    monkeypatch.setitem(sys.modules, "lightly_train", module)
    torch.save({"state_dict": {}, "lightly_train": {"models": module.Model()}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"give its export: exported_models/exported_last\.pt"):
        load_official_checkpoint(tmp_path / "last.ckpt")
