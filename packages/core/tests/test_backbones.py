"""Untrusted backbone folders, and networks by name."""

import json
import re
import socket

import pytest
import safetensors.torch
import torch
from torch import nn

from genviews_core.backbones import (
    backbone_hash,
    backbone_input,
    check_architecture,
    create_backbone,
    described,
    from_hub,
    last_map,
    load_backbone,
    load_timm,
    pretrained,
)

timm = pytest.importorskip("timm", reason="the extra 'backbones' is not installed")

IMAGES = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
TINY_VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 3}
EVERY = [
    {"name": "resnet18"},
    {"name": "resnet18", "cifar_stem": True, "stem_padding": 2, "image_size": 32, "zero_init_residual": True},
    {"name": "resnet10", "width": 4, "cifar_stem": True, "stem_stride": 2},
    {"name": "resnet20"},
    {"name": "widened_resnet", "depth": 50, "same_padding": True},
    {"name": "moco_vit_small", "freeze_patch_embed": False, **TINY_VIT},
    {"name": "dino_vit_tiny", "drop_path_rate": 0.1, **TINY_VIT},
    {"name": "timm/vit_tiny_patch16_224", "class_token": False, "global_pool": "avg", **TINY_VIT},
    {"name": "timm/resnet18.a1_in1k"},
    {"name": "timm/convnext_atto", "depths": [1, 1, 1, 1], "dims": [4, 4, 4, 4]},
]


def write(folder, network: nn.Module, architecture, recipe=IMAGES, **more) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "backbone.safetensors")
    about = {"architecture": architecture, "hash": backbone_hash(network), "recipe": recipe, **more}
    (folder / "backbone.json").write_text(json.dumps(about))


@pytest.fixture
def folder(tmp_path):
    """Return folder(architecture, recipe): a ResNet's folder with a modified backbone.json."""
    network = create_backbone("resnet10", width=4)

    def folder(architecture=None, recipe=IMAGES, **more):
        write(tmp_path / "b", network, architecture or {"name": "resnet10", "width": 4}, recipe, **more)
        return tmp_path / "b"

    return folder


@pytest.mark.parametrize("architecture", EVERY, ids=lambda architecture: architecture["name"])
def test_a_saved_backbone_loads_in_evaluation_mode_with_the_same_features(architecture, tmp_path):
    torch.manual_seed(0)
    network = create_backbone(**architecture).eval()
    write(tmp_path / "b", network, json.loads(json.dumps(described(architecture))))
    loaded = load_backbone(tmp_path / "b")
    images = torch.randn(2, 3, architecture.get("img_size", 32), architecture.get("img_size", 32))
    with torch.no_grad():
        features, maps = loaded(images), last_map(loaded, images)
        assert torch.equal(features, network(images)) and not loaded.training
    assert features.shape == (2, loaded.num_features)
    if maps.ndim == 4 and "convnext" not in architecture["name"]:  # which has a norm between map and features
        torch.testing.assert_close(maps.mean((2, 3)), features)
    if maps.ndim == 3:
        assert maps.shape == (2, 4, 12)


HOSTILE = [
    ({"name": "resnet18", "weights": "DEFAULT"}, "unknown option 'weights' of resnet18"),
    ({"name": "timm/resnet18", "pretrained": True}, "unknown option 'pretrained' of timm/resnet18"),
    ({"name": "timm/resnet18", "checkpoint_path": "/etc/passwd"}, "unknown option 'checkpoint_path'"),
    ({"name": "timm/resnet18", "pretrained_cfg_overlay": {"file": "x"}}, "unknown option 'pretrained_cfg_overlay'"),
    ({"name": "timm/hf-hub:someone/model"}, "unknown architecture 'timm/hf-hub:someone/model'"),
    ({"name": "timm/local-dir:/tmp"}, "unknown architecture"),
    ({"name": "timm/../resnet18"}, "unknown architecture"),
    ({"name": "timm/no_such_model"}, "cannot be built (expected the name of a backbone, got 'timm/no_such_model'"),
    ({"name": "mine"}, "unknown architecture 'mine': expected a ResNet of torchvision"),
    ({"name": 3}, "expected an architecture with a name"),
    ([], "expected an architecture with a name"),
    ({"name": "resnet10", "widht": 4}, "unknown option 'widht' of resnet10: did you mean width?"),
    ({"name": "resnet10", "width": "4"}, "width of resnet10: expected a whole number from 1 to 2048, got '4'"),
    ({"name": "resnet10", "width": True}, "expected a whole number from 1 to 2048, got True"),
    ({"name": "resnet10", "width": 10**9}, "expected a whole number from 1 to 2048, got 1000000000"),
    ({"name": "resnet10", "width": 2048}, "does not fit the network in backbone.json; wrong shape: bn1.bias"),
    ({"name": "timm/vit_tiny_patch16_224", "embed_dim": 12288, "depth": 96}, "does not fit the network"),
    ({"name": "timm/vit_tiny_patch16_224", "embed_dim": 193}, "cannot be built"),
    ({"name": "timm/resnet18", "patch_size": 8}, "timm/resnet18 cannot be built"),
    ({"name": "timm/vit_tiny_patch16_224", "drop_rate": float("nan")}, "expected a number from 0 to 0.999, got nan"),
    ({"name": "timm/vit_tiny_patch16_224", "act_layer": "torch.nn:GELU"}, "expected a name of lowercase letters"),
    ({"name": "dino_vit_tiny", "global_pool": "eval"}, "expected one of '', 'avg'"),
    ({"name": "widened_resnet", "depth": 51}, "expected one of 50, 101, 152, 200, got 51"),
]


@pytest.fixture
def no_network(monkeypatch):
    """Fail the test if a socket is opened."""

    def opened(*_, **__):
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket, "socket", opened)
    monkeypatch.setattr(socket, "create_connection", opened)


@pytest.mark.parametrize(("architecture", "message"), HOSTILE, ids=lambda value: str(value)[:40])
def test_a_hostile_architecture_is_a_one_line_error(architecture, message, folder, no_network):
    path = folder(architecture or [0])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_backbone(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({**IMAGES, "mean": [float("nan"), 0, 0]}, "mean: expected 3 numbers from -100 to 100"),
        ({**IMAGES, "std": [0, 0, 0]}, "std: expected 3 numbers from 0.0001 to 100, got [0, 0, 0]"),
        ({**IMAGES, "std": [float("inf")] * 3}, "std: expected 3 numbers"),
        ({**IMAGES, "mean": 0.5}, "mean: expected 3 numbers"),
        ({**IMAGES, "mean": ["a", "b", "c"]}, "mean: expected 3 numbers"),
        ({**IMAGES, "image_size": 10**9}, "image_size: expected a whole number from 1 to 8192, got 1000000000"),
        ({**IMAGES, "image_size": "32"}, "image_size: expected a whole number"),
        ([], "recipe: expected an object, got list"),
    ],
)
def test_invalid_image_settings_are_a_one_line_error(recipe, message, folder):
    with pytest.raises(ValueError, match=re.escape(message)):
        backbone_input(folder(recipe=recipe))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is broken"),
        ("\ud800", "is broken"),
        ("{}", "expected an object with architecture and hash"),
        ("[]", "expected an object with architecture and hash"),
        ('{"format": 2, "hash": "", "architecture": {}}', "expected format 1, got 2"),
    ],
)
def test_a_broken_description_is_a_one_line_error(text, message, folder):
    path = folder()
    (path / "backbone.json").write_text(text, errors="surrogatepass")
    with pytest.raises(ValueError, match=message):
        load_backbone(path)


def test_missing_image_settings_give_a_warning(folder):
    with pytest.warns(UserWarning, match=r"using image_size 224, mean \(0.485, 0.456, 0.406\), std"):
        assert backbone_input(folder(recipe={}))["size"] == 224
    stem = {"name": "resnet10", "width": 4, "cifar_stem": True}
    with pytest.warns(UserWarning, match="using image_size 32"):
        backbone_input(folder(stem, recipe={}))
    timms = {"name": "timm/vit_tiny_patch16_224", "img_size": 16}
    with pytest.warns(UserWarning, match="using mean"):
        images = backbone_input(folder(timms, recipe={"image_size": 16}))
    assert images == {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # timm's of augreg, not ImageNet's


def test_a_description_omits_the_source_of_initial_weights():
    assert described({"name": "timm/resnet18", "pretrained": True}) == {"name": "timm/resnet18"}
    assert described({"name": "resnet18", "weights": "DEFAULT"}) == {"name": "resnet18"}
    with pytest.raises(ValueError, match="unknown option 'norm_layer'"):
        described({"name": "resnet18", "norm_layer": nn.Identity})
    assert check_architecture({"name": "resnet10", "width": 8}) == {"name": "resnet10", "width": 8}


def test_unsupported_options_are_a_one_line_error():
    for name in ("resnet18", "resnet20", "dino_vit_tiny", "timm/resnet18"):
        with pytest.raises(ValueError, match=f"{name} takes no such options"):
            create_backbone(name, wheels=4)


def test_pretrained_weights_come_from_timm_on_request(tmp_path, monkeypatch):
    theirs = timm.create_model("resnet18", num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "fetched.pth")
    create = timm.create_model
    overlay = {"file": str(tmp_path / "fetched.pth"), "num_classes": 3}  # instead of timm's server
    monkeypatch.setattr(timm, "create_model", lambda *args, **kw: create(*args, **kw, pretrained_cfg_overlay=overlay))
    monkeypatch.setattr(pretrained, "_answers", lambda _: True)
    ours = create_backbone("timm/resnet18", pretrained=True)
    name = "layer4.1.conv2.weight"
    assert torch.equal(ours.state_dict()[name], theirs.state_dict()[name])


def test_without_a_network_one_attempt_gives_a_one_line_error(monkeypatch):
    tried = []
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", lambda *_, **__: tried.append(1) or _fail())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")

    def _fail():
        raise OSError("no network")

    for load in (lambda: load_timm("resnet18.a1_in1k"), lambda: create_backbone("timm/resnet18", pretrained=True)):
        with pytest.raises(ValueError, match=r"is unreachable, and they are not in its cache.*give a backbone folder"):
            load()
    assert len(tried) == 2
    with pytest.raises(ValueError, match=r"cannot get the weights of x \(broken file\)"), from_hub("x"):
        raise RuntimeError("broken file\nand more")
