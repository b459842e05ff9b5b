"""Files in the formats of the official repositories, made here, beside the numbers of the official code.

The official networks were built small, filled by `value`, saved as their training scripts save, and run on `images`.
"""

import argparse
import hashlib
import itertools
import math
import os
import pickle
import sys
import types
import zlib
from pathlib import Path, PosixPath

import pytest
import safetensors.torch
import torch
from torch import nn

from sslzoo import (
    backbone_input,
    create_backbone,
    load_backbone,
    load_classifier,
    load_official_checkpoint,
    resolve_backbone,
)
from sslzoo.backbones import infer_architecture
from sslzoo.cli import main

VIT = "timm/vit_tiny_patch16_224"
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}

# Format: method, image size, hash of the official names and shapes, the first features of the official forward pass.
OFFICIAL = {
    # facebookresearch/moco@132aea9 moco/builder.py: MoCo(resnet18, dim=8, K=16), without and with mlp
    "moco-v1": ("MoCo v1", 64, "c4dd1477789dbfaa", (0.330827, 3.70745, 6.129883, 0.696694)),
    "moco-v2": ("MoCo v2", 64, "1cfaf9cad6c3e04b", (0.330827, 3.70745, 6.129883, 0.696694)),
    # facebookresearch/moco-v3@c349e6e moco/builder.py, vits.py (timm 0.4.9): resnet18 and vit_small, dim=8, mlp_dim=16
    "moco-v3-resnet": ("MoCo v3", 64, "867755a01cc0f4e9", (0.29024, 0.118163, 0.0, 2.806177)),
    "moco-v3-vit": ("MoCo v3", 224, "1df08b59e206656c", (0.485646, -1.576185, 0.344158, -1.160473)),
    # facebookresearch/simsiam@a7bc177 simsiam/builder.py: SimSiam(resnet18, dim=16, pred_dim=8)
    "simsiam": ("SimSiam", 64, "10aef39a23c4ca53", (0.472437, 0.324783, 4.804435, 4.786276)),
    # yaox12/BYOL-PyTorch@edefc01 model/byol_model.py with resnet18; utils/load_and_convert.py for the release
    "byol-pytorch": ("BYOL", 64, "72ce3bfac672d1df", (2.516088, 0.574194, 2.662367, 0.270954)),
    "byol-pytorch-release": ("BYOL", 64, "ca4131163769c4a8", (3.714026, 4.521576, 1.774858, 2.303146)),
    # ajtejankar/byol-convert@7497e7f resnet.py: resnet50(num_classes=8)
    "byol-convert": ("BYOL", 64, "fb43f142bf608be1", (2.590028, 6.567705, 2.695026, 2.542192)),
    # facebookresearch/swav@06b1b7c src/resnet50.py: output_dim=8, hidden_mlp=16, nmb_prototypes=6 and [6, 6, 6]
    "swav": ("SwAV", 64, "6715c782805cfdc8", (3.714026, 4.521576, 1.774858, 2.303146)),
    "deepcluster-v2": ("DeepCluster-v2 or SeLa-v2", 64, "e2d9b4226490f9e5", (3.714026, 4.521576, 1.774858, 2.303146)),
    # facebookresearch/vicreg@4e12602 main_vicreg.py: resnet34, mlp 16-16-16
    "vicreg": ("VICReg", 64, "58b9b6d24973e688", (11.486473, 8.435047, 13.74446, 8.131512)),
    # facebookresearch/barlowtwins@8e8d284 main.py: projector 16-16-16
    "barlow-twins": ("Barlow Twins", 64, "5dbc1415e36154a9", (1.8983, 5.671512, 5.980873, 8.457539)),
    # facebookresearch/dino@7c446df utils.py, vision_transformer.py: DINOHead(_, 16, hidden_dim=8, bottleneck_dim=4)
    "dino-resnet": ("DINO", 64, "a82b070e3f411ce3", (3.292057, 2.843581, 0.230663, 1.309376)),
    "dino-vit": ("DINO", 224, "434f3ad24f766c03", (-0.042107, 1.576225, 0.378719, 0.700562)),
    # sthalles/SimCLR@1848fc9 models/resnet_simclr.py: resnet18, out_dim=8
    "simclr-pytorch": ("SimCLR", 64, "ba0884815f049ee9", (3.292057, 2.843581, 0.230663, 1.309376)),
    # akamaster/pytorch_resnet_cifar10@d5489e8 resnet.py: resnet20(), what its linear layer sees
    "cifar-resnet": ("labels", 32, "0f89cd4e125a58d5", (1.706192, 0.835761, 1.324201, 2.495327)),
    # Separius/SimCLRv2-Pytorch@f4c2f41 resnet.py: get_resnet(50)
    "simclr-v2": ("SimCLR v2", 64, "b64db8770bb4081a", (1.339502, 1.022438, 4.246826, 1.005888)),
}


def value(name: str, like: torch.Tensor) -> torch.Tensor:
    """From the name alone."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return 0.5 + 0.5 * noise.abs()
    if noise.ndim > 1:
        return noise / math.sqrt(noise[0].numel())
    return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise


def shapes_of(name: str) -> nn.Module:
    """A network without values, which are `value`'s."""
    with torch.device("meta"):
        return create_backbone(name)


def named(**modules: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of modules under their names, double underscores for dots."""
    names = {
        f"{prefix.replace('__', '.')}.{name}".removeprefix("."): tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    return {name: value(name, tensor) for name, tensor in names.items()}


def mlp(*widths: int, bias: bool = False, last_bias: bool = False, last_norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide_in, wide_out in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(wide_in, wide_out, bias=bias), nn.BatchNorm1d(wide_out), nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []))


def parallel(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As DistributedDataParallel names them."""
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def two_layers(wide: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, out))


def moco(head: nn.Module):
    encoder = shapes_of("resnet18")
    queue = {"queue": torch.zeros(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    tensors = named(encoder_q=encoder, encoder_q__fc=head, encoder_k=encoder, encoder_k__fc=head) | queue
    return tensors, {"epoch": 200, "arch": "resnet18", "state_dict": parallel(tensors), "optimizer": OPTIMIZER}


def moco_v3(encoder: nn.Module, linear: str, head: nn.Module, predictor: nn.Module):
    branches = {"base_encoder": encoder, f"base_encoder__{linear}": head}
    tensors = named(**branches, momentum_encoder=encoder, **{f"momentum_encoder__{linear}": head}, predictor=predictor)
    fixed = {name: encoder.pos_embed for name in tensors if name.endswith("pos_embed")}
    tensors |= {name: tensor.detach() for name, tensor in fixed.items()}
    return tensors, {"epoch": 300, "state_dict": parallel(tensors), "optimizer": OPTIMIZER, "scaler": {"scale": 1.0}}


def moco_v3_resnet():
    return moco_v3(shapes_of("resnet18"), "fc", mlp(512, 16, 8, last_norm=True), mlp(8, 16, 8))


def moco_v3_vit():
    head, predictor = mlp(384, 16, 16, 8, last_norm=True), mlp(8, 16, 8, last_norm=True)
    return moco_v3(create_backbone("moco_vit_small"), "head", head, predictor)


def simsiam():
    head = mlp(512, 512, 512, 16, last_bias=True, last_norm=True)
    tensors = named(encoder=shapes_of("resnet18"), encoder__fc=head, predictor=mlp(16, 8, 16, last_bias=True))
    return tensors, {"epoch": 100, "arch": "resnet18", "state_dict": parallel(tensors), "optimizer": OPTIMIZER}


def byol():
    encoder = nn.Sequential(*list(shapes_of("resnet18").children())[:-1])

    def head(wide: int) -> nn.Module:
        return nn.ModuleDict({"l1": nn.Linear(wide, 16), "bn1": nn.BatchNorm1d(16), "l2": nn.Linear(16, 8)})

    branch = {"encoder": encoder, "projetion": head(512)}
    networks = {f"{name}_network__{part}": m for name in ("online", "target") for part, m in branch.items()}
    tensors = named(**networks, predictor__predictor=head(8))
    return tensors, {"config": {"lr": 1}, "epoch": 300, "model": parallel(tensors), "amp": {"loss_scaler0": {}}}


def byol_release():
    """Its names are unknown; the order is torchvision's."""
    own = {name: value(name, tensor) for name, tensor in shapes_of("resnet50").state_dict().items()}
    tensors = {f"backbone.{name.replace('downsample', 'shortcut').replace('bn', 'norm')}": own[name] for name in own}
    return tensors, {"online_backbone": tensors, "predictor": {"l1.weight": torch.zeros(2)}}


def byol_convert():
    tensors = named(**{"": shapes_of("resnet50"), "fc": nn.Linear(2048, 8)})
    tensors = {name: tensor for name, tensor in tensors.items() if "tracked" not in name}
    return tensors, tensors


def swav(prototypes: dict[str, nn.Module]):
    head = mlp(2048, 16, 8, bias=True, last_bias=True)
    tensors = named(**{"": shapes_of("resnet50")}, projection_head=head, **prototypes)
    return tensors, parallel(tensors)


def vicreg():
    tensors = named(backbone=shapes_of("resnet34"), projector=mlp(512, 16, 16, 16, bias=True))
    groups = [{"lr": 0.1, "weight_decay_filter": sys.modules["main_vicreg"].exclude_bias_and_norm}]
    return tensors, {"epoch": 100, "model": parallel(tensors), "optimizer": {"state": {}, "param_groups": groups}}


def barlow_twins():
    norm = nn.BatchNorm1d(16, affine=False)
    tensors = named(backbone=shapes_of("resnet50"), projector=mlp(2048, 16, 16, 16), bn=norm)
    return tensors, {"epoch": 1000, "model": parallel(tensors), "optimizer": OPTIMIZER}


def dino(encoder: nn.Module, wrapped: bool):
    wide = encoder.num_features
    head = nn.Sequential(nn.Linear(wide, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
    last = {f"head.last_layer.weight_{part}": torch.zeros(16, wide) for part, wide in (("g", 1), ("v", 4))}
    tensors = named(backbone=encoder, head__mlp=head) | last
    student = parallel({name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    args = argparse.Namespace(arch="vit_tiny", output_dir=PosixPath("/runs/dino"), global_crops_scale=(0.4, 1.0))
    teacher = parallel(tensors) if wrapped else tensors
    return tensors, {"student": student, "teacher": teacher, "epoch": 100, "args": args, "optimizer": OPTIMIZER}


def simclr():
    tensors = named(backbone=shapes_of("resnet18"), backbone__fc=two_layers(512, 8))
    return tensors, {"epoch": 200, "arch": "resnet18", "state_dict": tensors, "optimizer": OPTIMIZER}


def simclr_v2():
    parts = {"conv1": "0", "bn1": "1.0", "conv2": "2", "bn2": "3.0", "conv3": "4", "bn3": "5.0"}
    tensors = {}
    for name, tensor in shapes_of("resnet50").state_dict().items():
        if name.startswith("layer"):
            stage, block, part, rest = name.removeprefix("layer").split(".", 3)
            if part == "downsample":
                rest = rest.replace("0.", "shortcut.", 1) if rest.startswith("0.") else rest.replace("1.", "bn.0.", 1)
            inside = f"projection.{rest}" if part == "downsample" else f"net.{parts[part]}.{rest}"
            tensors[f"net.{stage}.blocks.{block}.{inside}"] = tensor
        else:
            layer, _, rest = name.partition(".")
            tensors[f"net.0.{parts[layer]}.{rest}"] = tensor
    tensors = {name: value(name, tensor) for name, tensor in tensors.items()} | named(fc=nn.Linear(2048, 1000))
    return tensors, {"resnet": tensors, "head": {"layers.0.weight": torch.zeros(2)}}


def cifar_resnet():
    tensors = named(**{"": shapes_of("resnet20"), "linear": nn.Linear(64, 10)})
    return tensors, {"best_prec1": 91.7, "state_dict": parallel(tensors)}


FILES = {
    "cifar-resnet": cifar_resnet,
    "moco-v1": lambda: moco(nn.Linear(512, 8)),
    "moco-v2": lambda: moco(two_layers(512, 8)),
    "moco-v3-resnet": moco_v3_resnet,
    "moco-v3-vit": moco_v3_vit,
    "simsiam": simsiam,
    "byol-pytorch": byol,
    "byol-pytorch-release": byol_release,
    "byol-convert": byol_convert,
    "swav": lambda: swav({"prototypes": nn.Linear(8, 6, bias=False)}),
    "deepcluster-v2": lambda: swav({f"prototypes__prototypes{i}": nn.Linear(8, 6, bias=False) for i in range(3)}),
    "vicreg": vicreg,
    "barlow-twins": barlow_twins,
    "dino-resnet": lambda: dino(shapes_of("resnet18"), wrapped=True),
    "dino-vit": lambda: dino(create_backbone(VIT), wrapped=False),
    "simclr-pytorch": simclr,
    "simclr-v2": simclr_v2,
}


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


@torch.no_grad()
def first_features(backbone: nn.Module, size: int) -> torch.Tensor:
    return backbone(images(size))[0, :4]


@pytest.fixture(autouse=True)
def vicregs_script(monkeypatch):
    """VICReg's optimizer state names a function of its script; here it exists while files are written."""
    script = types.ModuleType("main_vicreg")
    exec("def exclude_bias_and_norm(p): return p.ndim == 1", script.__dict__)
    monkeypatch.setitem(sys.modules, "main_vicreg", script)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_features_are_those_of_the_official_code(name, tmp_path, monkeypatch):
    method, size, official_names, official_features = OFFICIAL[name]
    tensors, content = FILES[name]()
    assert fingerprint(tensors) == official_names
    torch.save(content, tmp_path / "checkpoint.pth")
    monkeypatch.delitem(sys.modules, "main_vicreg")
    layout = "byol-convert" if name == "byol-convert" else None  # no name shows this one
    backbone, about = load_official_checkpoint(tmp_path / "checkpoint.pth", format=layout)
    assert about["method"] == method
    torch.testing.assert_close(first_features(backbone, size), torch.tensor(official_features), rtol=1e-4, atol=1e-5)


@pytest.fixture
def checkpoint(tmp_path) -> tuple[Path, dict]:
    """A SimSiam file and its content."""
    _, content = simsiam()
    torch.save(content, tmp_path / "checkpoint_0099.pth.tar")
    return tmp_path / "checkpoint_0099.pth.tar", content


def test_the_command_makes_a_folder_with_the_same_features(checkpoint, tmp_path, monkeypatch, capsys):
    path, _ = checkpoint
    monkeypatch.setattr(sys, "argv", ["sslzoo", "import", str(path), "--out", str(tmp_path / "folder")])
    main()
    assert "resnet18, SimSiam, read as simsiam (facebookresearch/simsiam@a7bc177" in capsys.readouterr().out
    opened, about = load_official_checkpoint(path)
    assert torch.equal(load_backbone(tmp_path / "folder")(images(64)), opened(images(64)))
    source = about["recipe"]["source"]
    assert (source["file"], source["licence"]) == (path.name, "CC-BY-NC-4.0")
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone_input(tmp_path / "folder") == resolve_backbone(path)[1]
    assert about["epoch"] == 100
    exported = tmp_path / "weights.pkl"
    arguments = ["export", str(tmp_path / "folder"), "--format", "detectron2", "--out", str(exported)]
    monkeypatch.setattr(sys, "argv", ["sslzoo", *arguments])
    main()
    assert "MODEL.RESNETS.DEPTH 18" in (told := capsys.readouterr().out)
    assert "MODEL.PIXEL_MEAN [123.675, 116.28, 103.53]" in told
    assert "res5.1.conv2.norm.running_var" in pickle.loads(exported.read_bytes())["model"]


def test_files_of_old_pytorch_and_of_safetensors_open_too(checkpoint, tmp_path):
    path, content = checkpoint
    expected = first_features(load_official_checkpoint(path)[0], 64)
    torch.save(content, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert torch.equal(first_features(load_official_checkpoint(tmp_path / "old.pth.tar")[0], 64), expected)
    bare = {name.removeprefix("module.encoder."): t for name, t in content["state_dict"].items() if ".encoder." in name}
    bare = {name: tensor for name, tensor in bare.items() if not name.startswith("fc.")}
    safetensors.torch.save_file(bare, tmp_path / "bare.safetensors")
    backbone, about = load_official_checkpoint(tmp_path / "bare.safetensors", format="barlow-twins-backbone")
    assert (about["method"], about["epoch"]) == ("Barlow Twins", None)
    assert torch.equal(first_features(backbone, 64), expected)


def test_simclrs_networks_want_images_as_they_are(tmp_path):
    tensors = named(**{"": shapes_of("resnet18"), "fc": nn.Linear(512, 1000)})
    torch.save({"state_dict": tensors}, tmp_path / "resnet50-1x.pth")
    about = load_official_checkpoint(tmp_path / "resnet50-1x.pth", format="simclr-converter")[1]
    assert (about["recipe"]["mean"], about["recipe"]["std"]) == ([0, 0, 0], [1, 1, 1])
    assert load_official_checkpoint(tmp_path / "resnet50-1x.pth")[1]["method"] == "unknown"


@pytest.mark.parametrize("size", [96, 256])
def test_positions_of_another_image_size_are_dinos(size, tmp_path):
    """facebookresearch/dino@7c446df vision_transformer.py, vit_tiny(patch_size=16) on larger and smaller images."""
    official = {96: (0.927937, 1.262959, 0.897679, 0.6252), 256: (0.411086, 0.506879, 0.148256, 0.492588)}
    tensors, _ = dino(create_backbone(VIT), wrapped=False)
    bare = {n.removeprefix("backbone."): tensor for n, tensor in tensors.items() if n.startswith("backbone.")}
    torch.save(bare, tmp_path / "dino_deitsmall16_pretrain.pth")
    backbone, about = load_official_checkpoint(tmp_path / "dino_deitsmall16_pretrain.pth", image_size=size)
    assert about["recipe"]["image_size"] == about["architecture"]["image_size"] == size
    torch.testing.assert_close(first_features(backbone, size), torch.tensor(official[size]), rtol=1e-4, atol=1e-5)
    of_any_size, _ = load_official_checkpoint(tmp_path / "dino_deitsmall16_pretrain.pth", format="dino-backbone")
    torch.testing.assert_close(first_features(of_any_size, size), torch.tensor(official[size]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=f"multiple of the patch size 16, got {size + 1}"):
        load_official_checkpoint(tmp_path / "dino_deitsmall16_pretrain.pth", image_size=size + 1)


def test_moco_v3s_small_transformer_keeps_its_twelve_heads(tmp_path):
    """Also where convert_to_deit.py left the network alone: no shape shows the heads, the fixed positions do."""
    torch.save({"model": create_backbone("moco_vit_small").state_dict()}, tmp_path / "vit-s-300ep.pth")
    backbone, about = load_official_checkpoint(tmp_path / "vit-s-300ep.pth", format="moco-v3-deit")
    assert backbone.blocks[0].attn.num_heads == 12
    assert (about["architecture"]["name"], about["method"]) == ("moco_vit_small", "MoCo v3")


def test_wide_networks_are_recognised_by_their_shapes():
    """facebookresearch/swav@06b1b7c src/resnet50.py: resnet50w2, with the heads of the other files here."""
    with torch.device("meta"):
        wide = create_backbone(name="widened_resnet", depth=50, widen=2)
        modules = {"projection_head": mlp(4096, 16, 8, bias=True, last_bias=True), "prototypes": nn.Linear(8, 6, False)}
    tensors = wide.state_dict()
    heads = {f"{part}.{name}": t for part, module in modules.items() for name, t in module.state_dict().items()}
    assert fingerprint(tensors | heads) == "cd352caa262c9e42"
    assert infer_architecture(tensors) == ({"name": "widened_resnet", "depth": 50, "widen": 2}, "")


@pytest.mark.slow
def test_the_features_of_a_wide_network_are_those_of_the_official_code(tmp_path):
    """facebookresearch/swav@06b1b7c src/resnet50.py: resnet50w2; tonylins/simclr-converter@139d3cb has the same."""
    with torch.device("meta"):
        wide = create_backbone(name="widened_resnet", depth=50, widen=2)
    torch.save(named(**{"": wide}), tmp_path / "resnet50x2.pth")
    backbone, _ = load_official_checkpoint(tmp_path / "resnet50x2.pth", format="vicreg-backbone")
    expected = torch.tensor((8.534463, 0.86732, 0.188515, 2.189471))
    torch.testing.assert_close(first_features(backbone, 64), expected, rtol=1e-4, atol=1e-5)


def broken(change):
    def apply(content):
        state = dict(content["state_dict"])
        change(state)
        return {**content, "state_dict": state}

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(lambda s: s.pop("module.encoder.bn1.bias")), r"does not fit resnet18: missing: bn1\.bias$"),
        (broken(lambda s: s.update({"module.encoder.bn9.bias": torch.zeros(1)})), r"resnet18: unknown: bn9\.bias$"),
        (
            broken(lambda s: s.update({"module.teacher.x": torch.zeros(1)})),
            r"tensors that this format does not have: unknown: teacher\.x",
        ),
        (
            broken(lambda s: s.update({"module.encoder.bn1.bias": torch.zeros(3)})),
            r"wrong shape: bn1\.bias \(3,\) instead of \(64,\)",
        ),
        (
            lambda _: {"epoch": 3, "net": {"a.weight": torch.zeros(1)}},
            r"an unknown format; found epoch, net \(a\.weight, \.\.\.\)",
        ),
        (lambda _: {"patch_embed.proj.0.weight": torch.zeros(1)}, r"neither a ResNet .* convolutional stem"),
        (
            lambda _: {"resnet": {"net.1.mixing_conv.0.weight": torch.zeros(1), "net.": torch.zeros(1)}},
            r"selective kernels",
        ),
        (lambda _: torch.zeros(3), r"expected a dict of tensors .*, got a Tensor"),
        (lambda _: {"bn1.running_mean": torch.zeros(1)}, r"no num_batches_tracked; for DeepMind's BYOL"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_it(checkpoint, change, message):
    path, content = checkpoint
    torch.save(change(content), path)
    with pytest.raises(ValueError, match=message) as error:
        load_official_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


class Code:
    def __reduce__(self):
        return os.system, ("touch touched",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "args": Code()}, "code.pth")
    Path("old.pkl").write_bytes(pickle.dumps({"experiment_state": Code()}, protocol=3))
    for name in ("code.pth", "old.pkl"):
        with pytest.raises(ValueError, match=r"wants to run code \(posix\.system\) and was not opened"):
            load_official_checkpoint(name)
    Path("new.pkl").write_bytes(pickle.dumps({"experiment_state": Code()}, protocol=4))
    with pytest.raises(ValueError, match=r"is a pickle that torch\.save did not write"):
        load_official_checkpoint("new.pkl")
    assert not Path("touched").exists()


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "notes.pth").write_text("hello")
    with pytest.raises(ValueError, match="expected a PyTorch file, got"):
        load_official_checkpoint(tmp_path / "notes.pth")
    with pytest.raises(ValueError, match="does not exist"):
        load_official_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"expected a format .*moco-v2, moco-v1.*, got 'moko'"):
        torch.save({}, tmp_path / "empty.pth")
        load_official_checkpoint(tmp_path / "empty.pth", format="moko")


@pytest.mark.parametrize(("name", "head", "size"), [("resnet20", "linear", 32), ("resnet18", "fc", 224)])
def test_classifier_logits_match_the_checkpoint(tmp_path, name, head, size):
    network = create_backbone(name).eval()
    layer = nn.Linear(network.num_features, 7)
    tensors = {**network.state_dict(), **{f"{head}.{part}": value for part, value in layer.state_dict().items()}}
    torch.save({"state_dict": tensors} if name == "resnet20" else tensors, tmp_path / "file.pt")
    classifier, about = load_classifier(tmp_path / "file.pt")
    seen = torch.randn(2, 3, 32, 32)
    assert about["size"] == size and torch.equal(classifier(seen), layer(network(seen)))
