import json
import re

import open_clip
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from genviews_core.backbones import backbone_hash, create_backbone
from pairquality import FeatureEncoder, load_encoder

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
TOWERS = {
    "tiny-vit": {"image_size": 28, "layers": 3, "width": 32, "head_width": 16, "patch_size": 7},
    "tiny-avg-vit": {
        "image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7, "pool_type": "avg",
        "final_ln_after_pool": True,
    },
    "tiny-pooler-vit": {
        "image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7, "attentional_pool": True,
        "attn_pooler_heads": 4, "attn_pooler_queries": 5,
    },
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "tiny-convnext": {
        "image_size": 64, "timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear",
        "timm_drop_path": 0.1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """A folder of configurations that open_clip knows for as long as it lives."""
    folder = tmp_path_factory.mktemp("configs")
    for name, vision in TOWERS.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return folder


def clip_model(name: str) -> nn.Module:
    """Random weights; every norm's scale and shift too, so that leaving one out shows."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter) if parameter.ndim == 1 else 0.02
    return model.eval()


def normalized(images: torch.Tensor, mean, std) -> torch.Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def clip_input(images: torch.Tensor) -> torch.Tensor:
    return normalized(images, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)


def photos(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def expected_tokens(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    """By open_clip's own forward: its token output, or a hook on the last stage."""
    visual = model.visual
    if name == "tiny-vit":
        visual.output_tokens = True
        return visual(clip_input(images))[1]
    where = {"tiny-convnext": lambda: visual.trunk.stages, "tiny-resnet": lambda: visual.layer4}
    seen = []
    place = where.get(name, lambda: visual.transformer)()
    place.register_forward_hook(lambda module, inputs, output: seen.append(output))
    visual(clip_input(images))
    if name in where:
        return seen[0].flatten(2).transpose(1, 2)
    return visual.ln_post(seen[0][:, 1:]) if name == "tiny-avg-vit" else seen[0][:, 1:]


@pytest.mark.parametrize("name", TOWERS)
def test_open_clip_tokens_equal_open_clips_own(name, towers, tmp_path):
    model = clip_model(name)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "a.pt")
    encoder = load_encoder(f"open_clip/{name}:{tmp_path / 'a.pt'}")
    expected = expected_tokens(model, name, photos(encoder.size))
    assert encoder.size == TOWERS[name]["image_size"] and expected.std() > 0.05
    torch.testing.assert_close(encoder(photos(encoder.size)), expected, rtol=0, atol=1e-6)
    assert encoder.grid[0] * encoder.grid[1] == expected.shape[1]


def test_the_published_encoders_have_genviews_shapes():
    vit, convnext = open_clip.get_model_config("ViT-H-14"), open_clip.get_model_config("convnext_base_w")
    assert (
        vit is not None and vit["vision_cfg"]["width"] == 1280 and (224 // vit["vision_cfg"]["patch_size"]) ** 2 == 256
    )
    assert convnext is not None and convnext["vision_cfg"]["timm_model_name"] == "convnext_base"
    for model, tag in (("ViT-H-14", "laion2b_s32b_b79k"), ("convnext_base_w", "laion2B-s13B-b82K-augreg")):
        assert open_clip.get_pretrained_cfg(model, tag)


def test_open_clip_folders_and_their_normalisation(towers, tmp_path):
    model = clip_model("tiny-vit")
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    about = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5]}
    config = {"model_cfg": json.loads((towers / "tiny-vit.json").read_text()), "preprocess_cfg": about}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model.visual.output_tokens = True
    with torch.no_grad():
        expected = model.visual(normalized(photos(28), about["mean"], about["std"]))[1]
    for name in (f"open_clip/tiny-vit:{tmp_path}", f"open_clip/local-dir:{tmp_path}"):
        torch.testing.assert_close(load_encoder(name)(photos(28)), expected, rtol=0, atol=1e-6)
    given = load_encoder(f"open_clip/tiny-vit:{tmp_path}", mean=(0.1, 0.1, 0.1))
    assert given.normalization == ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5))
    large = load_encoder(f"open_clip/tiny-vit:{tmp_path}", size=42)
    assert large.grid == (6, 6) and large.network.positional_embedding.shape == (37, 32)


@pytest.mark.parametrize(
    ("name", "size", "grid", "width"),
    [
        ("resnet10t", 64, (2, 2), 512),
        ("vit_tiny_patch16_224", 32, (2, 2), 192),
        ("deit_tiny_distilled_patch16_224", 32, (2, 2), 192),
        ("swin_tiny_patch4_window7_224", 64, (2, 2), 768),
    ],
)
def test_timm_networks_of_every_layout(name, size, grid, width, tmp_path):
    torch.manual_seed(0)
    options = {} if name == "resnet10t" else {"img_size": size}
    model = timm.create_model(name, num_classes=7, **options).eval()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    encoder = load_encoder(f"timm/{name}:{tmp_path / 'a.safetensors'}", size=size)
    assert encoder.grid == grid and encoder(photos(size)).shape == (2, grid[0] * grid[1], width)
    with torch.no_grad():
        images = normalized(photos(size), *encoder.normalization)
        maps = model.forward_intermediates(images, 1, norm=True, intermediates_only=True)[0]  # always channels first
    torch.testing.assert_close(encoder(photos(size)), maps.flatten(2).transpose(1, 2), rtol=0, atol=1e-6)


def export_backbone(folder, network: nn.Module, architecture: dict, **recipe) -> None:
    """A backbone's folder, as its format says."""
    folder.mkdir(exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "backbone.safetensors"
    )
    recipe = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], **recipe}
    about = {"format": 1, "architecture": architecture, "hash": backbone_hash(network), "recipe": recipe}
    (folder / "backbone.json").write_text(json.dumps(about))


def headless(network: nn.Module) -> nn.Module:
    network.fc = nn.Identity()
    return network


def cifar_resnet18() -> nn.Module:
    network = headless(torchvision.models.resnet18())
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return network


@pytest.mark.parametrize(
    ("build", "architecture", "last", "grid"),
    [
        (lambda: headless(torchvision.models.resnet18()), {"name": "resnet18"}, "layer4", (1, 1)),
        (cifar_resnet18, {"name": "resnet18", "cifar_stem": True, "image_size": 32}, "layer4", (4, 4)),
        (
            lambda: headless(torchvision.models.resnext50_32x4d(zero_init_residual=True)),
            {"name": "resnext50_32x4d", "zero_init_residual": True}, "layer4", (1, 1),
        ),
        (lambda: timm.create_model("resnet10t", num_classes=0), {"name": "timm/resnet10t"}, "layer4", (1, 1)),
        (lambda: create_backbone("resnet20"), {"name": "resnet20"}, "layer3", (8, 8)),
    ],
)  # fmt: skip
def test_backbones_give_their_last_map(build, architecture, last, grid, tmp_path):
    torch.manual_seed(0)
    network = build().eval()
    export_backbone(tmp_path / "b", network, architecture)
    encoder = load_encoder(str(tmp_path / "b"))
    seen = []
    getattr(network, last).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        network(normalized(photos(32), (0.5,) * 3, (0.2,) * 3))
    torch.testing.assert_close(encoder(photos(32)), seen[0].flatten(2).transpose(1, 2), rtol=0, atol=1e-6)
    assert encoder.size == 32 and encoder.grid == grid


def test_a_vision_transformer_backbone_takes_its_own_size_alone(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=2).eval()
    export_backbone(tmp_path / "b", network, {"name": "timm/vit_tiny_patch16_224", "image_size": 32, "depth": 2})
    encoder = load_encoder(str(tmp_path / "b"))
    with torch.no_grad():
        expected = network.forward_features(normalized(photos(32), (0.5,) * 3, (0.2,) * 3))[:, 1:]
    torch.testing.assert_close(encoder(photos(32)), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="expected size 32 for the fixed-size"):
        load_encoder(str(tmp_path / "b"), size=64)


@pytest.mark.parametrize(("name", "heads"), [("moco_vit_small", 12), ("dino_vit_small", 6)])
def test_transformers_of_sslzoo_are_timms_with_their_own_heads(name, heads, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_224", img_size=32, num_classes=0, depth=1, num_heads=heads).eval()
    options = {"freeze_patch_embed": False} if name.startswith("moco") else {"drop_path_rate": 0.1}
    export_backbone(tmp_path / "b", network, {"name": name, "image_size": 32, "depth": 1, **options})
    with torch.no_grad():
        expected = network.forward_features(normalized(photos(32), (0.5,) * 3, (0.2,) * 3))[:, 1:]
    torch.testing.assert_close(load_encoder(str(tmp_path / "b"))(photos(32)), expected, rtol=0, atol=1e-6)


def test_the_narrow_resnet_is_a_resnet_of_one_block_per_stage(tmp_path):
    """At width 64 it is torchvision's ResNet of (1, 1, 1, 1) blocks."""
    torch.manual_seed(0)
    block = torchvision.models.resnet.BasicBlock
    network = headless(torchvision.models.ResNet(block, [1, 1, 1, 1])).eval()
    export_backbone(tmp_path / "b", network, {"name": "resnet10", "width": 64})
    seen = []
    network.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        network(normalized(photos(64), (0.5,) * 3, (0.2,) * 3))
    found = load_encoder(str(tmp_path / "b"), size=64)(photos(64))
    torch.testing.assert_close(found, seen[0].flatten(2).transpose(1, 2), rtol=0, atol=1e-6)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()
    architecture = {"name": "resnet10", "width": 64, "cifar_stem": True, "stem_stride": 2, "image_size": 32}
    export_backbone(tmp_path / "b", network, architecture)
    assert load_encoder(str(tmp_path / "b")).grid == (2, 2)


def test_mistakes_with_names_and_files_are_named(towers, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pt")
    (tmp_path / "text.safetensors").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("resnet50", "got 'resnet50'; give one"),
        ("open_clip/ViT-H-14", "got open_clip/ViT-H-14; write open_clip/ViT-H-14:TAG"),
        ("open_clip/ViT-Z:laion", "expected a model of open_clip, got 'ViT-Z'"),
        ("open_clip/tiny-vit:nothing", "cannot get the weights of open_clip/tiny-vit:nothing"),
        (f"open_clip/tiny-vit:{tmp_path / 'other.pt'}", "cannot load open_clip/tiny-vit"),
        (f"open_clip/tiny-vit:{tmp_path / 'code.pt'}", "cannot load open_clip/tiny-vit"),
        (f"open_clip/tiny-vit:{tmp_path / 'empty'}", "expected weights of open_clip"),
        ("timm/resnet1000", "expected a model of timm, got 'resnet1000'"),
        (
            f"timm/resnet10t:{tmp_path / 'other.pt'}",
            r"do not fit the network: missing: .* and \d+ more; unknown: weight",
        ),
        (f"timm/resnet10t:{tmp_path / 'code.pt'}", "cannot read the weights"),
        (f"timm/resnet10t:{tmp_path / 'text.safetensors'}", "cannot read the weights"),
        (f"timm/resnet10t:{tmp_path / 'missing'}", "expected a weights file"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_encoder(name)
        assert "\n" not in str(caught.value)


def test_broken_backbones_are_named(tmp_path):
    folder = tmp_path / "b"
    network = cifar_resnet18()

    def about(**changes) -> None:
        export_backbone(folder, network, {"name": "resnet18", "cifar_stem": True})
        text = json.loads((folder / "backbone.json").read_text())
        (folder / "backbone.json").write_text(json.dumps({**text, **changes}))

    for changes, message in (
        ({"hash": "0"}, "is not the one that backbone.json describes"),
        ({"architecture": {"name": "mine"}}, "unknown architecture 'mine': expected a ResNet"),
        ({"architecture": {"name": "resnet18", "depth": 3}}, "unknown option 'depth' of resnet18"),
        ({"architecture": {"name": "vgg11"}}, "unknown architecture 'vgg11'"),
        ({"architecture": {"name": "resnet34"}}, "does not fit the network"),
        ({"architecture": 3}, "is broken"),
        ({"recipe": {"mean": [0.5, 0.5]}}, "mean: expected 3 numbers"),
    ):
        about(**changes)
        with pytest.raises(ValueError, match=re.escape(message) if "(" in message else message):
            load_encoder(str(folder))
    with pytest.raises(ValueError, match="expected a size of 1 pixel or more, got 0"):
        load_encoder(str(folder), size=0)
    about(recipe={})
    with pytest.warns(UserWarning, match="using image_size 32, mean"):
        assert load_encoder(str(folder)).normalization == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert isinstance(load_encoder(str(folder), size=32, mean=(0.5,) * 3, std=(0.5,) * 3), FeatureEncoder)
    (folder / "backbone.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected backbone\.safetensors in the backbone folder"):
        load_encoder(str(folder))
