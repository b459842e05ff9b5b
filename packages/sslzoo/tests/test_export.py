"""What is exported is loaded in the other library, strictly, and gives the same features there."""

import pickle

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from sslzoo import create_backbone, detectron2_settings, to_detectron2, to_timm, to_torchvision
from sslzoo.export import timm_code, torchvision_code
from sslzoo.export.torchvision_timm import timm_resnet_code, torchvision_resnet_code

VIT = {"name": "timm/vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 2}
MOCO_VIT = {"name": "moco_vit_small", "image_size": 32, "patch_size": 8, "depth": 2}
DINO_VIT = {"name": "dino_vit_tiny", "image_size": 32, "patch_size": 8, "depth": 2}


@pytest.fixture
def backbone(seeded):
    """backbone(**architecture): with moved statistics, and no last batch norm of a block at zero."""

    def backbone(**architecture):
        network = create_backbone(**architecture)
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.3 * seeded.normal(1, *tensor.shape).abs())
            elif tensor.ndim == 1:
                tensor.add_(0.2 * seeded.normal(2, *tensor.shape))
        return network

    return backbone


@torch.no_grad()
def distance(first, second, images) -> float:
    ours, theirs = first.eval()(images), second.eval()(images)
    return float((ours - theirs).abs().max() / ours.abs().max())


@pytest.mark.parametrize("form", ["torchvision", "timm"])
@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "resnet18"},
        {"name": "resnet18", "cifar_stem": True},
        {"name": "resnet18", "cifar_stem": True, "stem_padding": 2},
        {"name": "resnet10", "width": 4},
        {"name": "resnet10", "width": 4, "cifar_stem": True, "stem_stride": 2},
        {"name": "timm/resnet18"},
        VIT,
        MOCO_VIT,
        DINO_VIT,
    ],
    ids=lambda architecture: "-".join(map(str, list(architecture.values())[:2])),
)
def test_the_other_library_gives_the_same_features(architecture, form, backbone, seeded, tmp_path):
    convert, network = {"torchvision": (to_torchvision, torchvision_code), "timm": (to_timm, timm_code)}[form]
    ours = backbone(**architecture)
    convert(ours, tmp_path / "weights.pth")
    names = {"torch": torch, "torchvision": torchvision, "timm": timm}
    exec(network(ours), names)
    names["network"].load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    assert distance(ours, names["network"], seeded.normal(3, 2, 3, 32, 32)) < 1e-5


@pytest.mark.parametrize("lines", [torchvision_resnet_code, timm_resnet_code])
def test_widened_resnets_build_in_other_libraries(lines):
    """Compares only names and shapes, because running a widened network takes seconds."""
    architecture = {"name": "widened_resnet", "depth": 50, "widen": 2}
    names = {"torch": torch, "torchvision": torchvision, "timm": timm}
    with torch.device("meta"):
        exec(lines(architecture), names)
        ours = create_backbone(**architecture)
    shapes = [{name: t.shape for name, t in network.state_dict().items()} for network in (ours, names["network"])]
    assert shapes[0] == shapes[1]


def test_files_are_safetensors_where_they_are_called_so(backbone, tmp_path):
    ours = backbone(name="resnet18")
    to_timm(ours, tmp_path / "weights.safetensors")
    assert safetensors.torch.load_file(tmp_path / "weights.safetensors").keys() == ours.state_dict().keys()


@pytest.mark.parametrize(
    ("convert", "architecture", "message"),
    [
        (to_torchvision, {"name": "resnet20"}, r"torchvision has no resnet20"),
        (
            to_torchvision,
            {"name": "timm/mobilenetv3_small_050"},
            r"names and shapes for torchvision, got .*MobileNetV3",
        ),
        (to_torchvision, {"name": "timm/resnetaa50"}, r"whose tensors fit resnet50 but whose features differ"),
        (
            to_torchvision,
            {**VIT, "class_token": False, "global_pool": "avg"},
            r"expected a plain vision transformer for torchvision",
        ),
        (to_timm, {"name": "resnet20"}, r"timm has no resnet20"),
        (
            to_detectron2,
            {"name": "resnet18", "cifar_stem": True},
            r"without CIFAR stem for detectron2, got resnet18 with one",
        ),
        (to_detectron2, {"name": "resnet10"}, r"18, 34, 50, 101 or 152 layers for detectron2, got resnet10"),
        (to_detectron2, VIT, r"for detectron2, got .*VisionTransformer"),
        (to_detectron2, {"name": "resnet18", "norm_layer": torch.nn.Identity}, r"names and shapes for detectron2"),
    ],
)
def test_what_cannot_be_expressed_is_one_clear_line(convert, architecture, message):
    with pytest.raises(ValueError, match=message) as error:
        convert(create_backbone(**architecture))
    assert "\n" not in str(error.value)


def test_detectron2s_names(backbone, tmp_path):
    ours = backbone(name="resnet18")
    to_detectron2(ours, tmp_path / "weights.pkl")
    content = pickle.loads((tmp_path / "weights.pkl").read_bytes())
    assert (content["__author__"], content["matching_heuristics"]) == ("sslzoo", True)
    theirs = content["model"]
    for name, other in {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.bn2.weight": "res2.0.conv2.norm.weight",
        "layer4.0.downsample.0.weight": "res5.0.shortcut.weight",
        "layer4.0.downsample.1.bias": "res5.0.shortcut.norm.bias",
    }.items():
        assert torch.equal(ours.state_dict()[name], torch.from_numpy(theirs[other]))
    assert len(theirs) == len(ours.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet50", "resnext50_32x4d"])
def test_detectron2_gives_the_same_feature_maps(name, backbone, seeded, tmp_path):
    """In the FPN backbone of Mask R-CNN, where the names have a prefix that detectron2 finds by itself."""
    pytest.importorskip("detectron2", reason="detectron2 is installed from its own repository")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone

    ours = backbone(name=name).eval()
    to_detectron2(ours, tmp_path / "weights.pkl")
    stages = ["res2", "res3", "res4", "res5"]
    others = {"MODEL.RESNETS.NORM": "BN", "MODEL.RESNETS.OUT_FEATURES": stages, "MODEL.FPN.IN_FEATURES": stages}
    config = get_cfg()
    for setting in {**detectron2_settings(ours), **others}.items():
        config.merge_from_list(setting)
    theirs = torch.nn.ModuleDict({"backbone": build_resnet_fpn_backbone(config, ShapeSpec(channels=3))}).eval()
    DetectionCheckpointer(theirs).load(str(tmp_path / "weights.pkl"))
    expected = {}
    for stage, layer in zip(stages, (ours.layer1, ours.layer2, ours.layer3, ours.layer4), strict=True):
        layer.register_forward_hook(lambda _, __, maps, stage=stage: expected.update({stage: maps}))
    images = seeded.normal(3, 1, 3, 64, 96)
    with torch.no_grad():
        ours(images)
        found = theirs["backbone"].bottom_up(images)
    for stage in stages:
        assert (found[stage] - expected[stage]).abs().max() < 1e-4 * expected[stage].abs().max(), stage
