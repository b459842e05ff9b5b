"""The tests that a word names, on small data in the official layouts: retrieval, copy detection, video."""

import json
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch
from drawn_layouts import (
    SmallTransformer,
    draw_copydays,
    draw_davis,
    draw_revisited,
)

import sslzoo
from genviews.cli.evaluate import main as evaluate_command
from ssl_eval.feature_maps import OutputAndFeatureMap, VariableSizeViT

APP = Path(__file__).resolve().parents[3] / "apps/evaluate"
TRANSFORMER = {
    "name": "timm/vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24,
    "num_heads": 3, "mlp_ratio": 2,
}  # fmt: skip
DINO = {**TRANSFORMER, "name": "dino_vit_tiny"}
NAMES = {
    "self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj": "attn.proj", "linear1": "mlp.fc1", "linear2": "mlp.fc2",
}  # fmt: skip


def small_weights() -> dict[str, torch.Tensor]:
    """Those of SmallTransformer, by timm's names."""
    renamed = {}
    for name, tensor in SmallTransformer().state_dict().items():
        for own, timms in NAMES.items():
            name = name.replace(own, timms)
        renamed[name] = tensor
    return renamed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    recipe = {"image_size": 32, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    residual = {"name": "resnet10", "cifar_stem": True, "width": 4}
    for name, architecture in (("vit", TRANSFORMER), ("dino", DINO), ("resnet", residual)):
        network = sslzoo.create_backbone(**architecture)
        if name != "resnet":
            network.load_state_dict(small_weights())
        about = {"method": "none", "recipe": recipe, "epoch": 0, "data": "none"}
        sslzoo.save_backbone(folder / name, network, architecture=architecture, **about)
    draw_revisited(folder / "roxford5k")
    draw_copydays(folder / "copydays")
    draw_davis(folder / "DAVIS")
    return folder


def measured(task: str, folder: Path, backbone: str, data: str, *options: str) -> dict[str, tuple[str, float]]:
    """Metric to protocol and percent."""
    results = folder / f"{task}-{backbone}.jsonl"
    places = ("--data", str(folder / data), "--results", str(results))
    evaluate_command([task, str(folder / backbone), *places, "--device", "cpu", *options])
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert {(row["task"], row["data"]) for row in rows} == {("copies" if task == "copy-detection" else task, data)}
    assert all(0 <= row["value"] <= 100 for row in rows if "Decay" not in row["metric"])
    return {row["metric"]: (row["protocol"], row["value"]) for row in rows}


@pytest.mark.parametrize("architecture", [TRANSFORMER, DINO])
def test_vision_transformers_of_any_size_match_dino(architecture):
    network = sslzoo.create_backbone(**architecture).eval()
    network.load_state_dict(small_weights())
    images = torch.randn(2, 3, 70, 41, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(VariableSizeViT(network)(images), VariableSizeViT(SmallTransformer().eval())(images))
        torch.testing.assert_close(network(images[..., :32, :32]), SmallTransformer().eval()(images[..., :32, :32]))


DYNAMIC = {"name": "timm/vit_tiny_patch16_224", "dynamic_img_size": True}


@pytest.mark.parametrize(
    "options",
    [
        {"name": "dino_vit_tiny"},
        DYNAMIC,
        DYNAMIC | {"reg_tokens": 4},
        DYNAMIC | {"reg_tokens": 4, "no_embed_class": True},
    ],
    ids=["dino", "timm", "registers", "registers without positions"],
)
def test_dynamic_size_transformers_are_called_directly(options):
    """At sizes as in DAVIS, Oxford and Paris; 9 x 4 patches have the same count as a 6 x 6 grid."""
    network = sslzoo.create_backbone(depth=1, embed_dim=24, num_heads=3, **options).eval()
    for height, width in ((224, 448), (320, 240), (480, 832), (144, 64), (128, 32)):
        images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            direct = network(images)
            output, found = OutputAndFeatureMap(network)(images)
            assert torch.equal(VariableSizeViT(network)(images), direct) and torch.equal(output, direct)
            tokens = network.forward_features(images)[:, network.num_prefix_tokens :]  # pyright: ignore
        assert found.shape == (1, 24, height // 16, width // 16)
        assert torch.equal(found.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("backbone", ["vit", "dino"])
def test_retrieval(folder, backbone):
    found = measured("retrieval", folder, backbone, "roxford5k", "--size", "64")
    # the figures of test_revisited.py in packages/ssl-eval
    assert found["mAP medium"] == ("size=64", pytest.approx(57.446393883893876, abs=1e-3)) and "mP@10 hard" in found


def test_retrieval_with_options(folder):
    options = ("--multi-scale", "--crop-queries", "--distractors", str(folder / "copydays/distractors"))
    found = measured("retrieval", folder, "resnet", "roxford5k", *options)
    assert {protocol for protocol, _ in found.values()} == {"size=224 multi-scale cropped distractors=30"}


def test_full_disk_loses_no_result(folder, capsys):
    with pytest.raises(SystemExit, match=r"^error: cannot write /dev/full: [^\n]*as lines to append to it$"):
        places = ["--data", str(folder / "roxford5k"), "--results", "/dev/full", "--device", "cpu"]
        evaluate_command(["retrieval", str(folder / "resnet"), *places, "--size", "32"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"mAP medium", "mAP hard"} <= {row["metric"] for row in rows}


def test_copies(folder):
    found = measured("copy-detection", folder, "vit", "copydays", "--size", "64")
    assert found["mAP strong"] == ("size=64", pytest.approx(57.421875, abs=1e-3))
    further = ("--distractors", str(folder / "copydays/distractors"), "--whitening", str(folder / "copydays/whitening"))
    found = measured(
        "copy-detection", folder, "resnet", "copydays", "--size", "32", "--batch-size", "5", "--workers", "1", *further
    )
    assert found["mAP original"] == ("size=32 distractors=30 whitening=60", 100)


@pytest.mark.parametrize("backbone", ["vit", "dino"])
def test_video(folder, backbone, tmp_path):
    options = ("--short-side", "96", "--frames", "3", "--radius", "4")
    found = measured("video", folder, backbone, "DAVIS", *options, "--masks", str(tmp_path))
    assert found["J&F-Mean"] == ("val 480p side=96 frames=3 radius=4 neighbours=5", pytest.approx(41.0776, abs=0.5))
    assert len(found) == 7 and len(list(tmp_path.glob("*/*.png"))) == 16


def test_video_of_a_resnet(folder):
    found = measured("video", folder, "resnet", "DAVIS", "--short-side", "96", "--frames", "3", "--radius", "4")
    assert "F-Decay" in found


def test_the_first_word_names_the_test(folder, monkeypatch, capsys):
    said = {
        "retrieval": r"expected one gnd_\*\.pkl in .*, got 0",
        "copy-detection": "original is missing",
        "video": r"val\.txt is missing",
    }
    for word, mistake in said.items():
        monkeypatch.setattr(sys, "argv", ["evaluate", word, str(folder / "vit"), "--data", str(folder / "vit")])
        with pytest.raises(SystemExit, match=f"^error: .*{mistake}[^\n]*$"):
            run_path(str(APP / "__main__.py"), run_name="__main__")
    monkeypatch.setattr(sys, "argv", ["evaluate", "--help"])
    with pytest.raises(SystemExit):
        run_path(str(APP / "__main__.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert all(
        each in told for each in ("retrieval BACKBONE", "copy-detection BACKBONE", "video BACKBONE", "--protocol")
    )
