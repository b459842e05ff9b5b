"""Training recipes: properties of their sources, one network per method at full size, one step of each recipe."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.nn.modules.batchnorm import _BatchNorm

import sslzoo
from genviews.cli.pretrain import main as pretrain_command
from genviews.cli.pretrain import parse_arguments
from genviews.end_to_end.plots import draw_curves
from genviews.pretraining.backbone import fit_backbone
from genviews.pretraining.views import make_views
from genviews.recipes import METHODS, RECIPES, method_class
from genviews.recipes.listing import WIDTH, recipe_table
from pairdata import PairBatch

TINY_HEADS = {
    "simclr": {"projection_dim": 8},
    "moco-v2": {"projection_dim": 8, "queue_size": 32},
    "moco-v3": {"projection_dim": 8, "hidden_dim": 16},
    "simsiam": {"projection_dim": 16, "prediction_dim": 8},
    "byol": {"projection_dim": 8, "hidden_dim": 16},
    "swav": {"prototypes": 12, "projection_dim": 8, "hidden_dim": 16},
    "vicreg": {"expander": (16, 16)},
    "barlow-twins": {"projector": (16, 16)},
    "dino": {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8},
    "gen-dino": {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8},
}


def test_every_recipe_is_looked_at_here_and_knows_its_name():
    assert all(make().name == name for name, make in RECIPES.items())
    assert {make().method for make in RECIPES.values()} == set(METHODS)


GENVIEW_BACKBONES = {
    "imagenet-moco-v2": ("resnet50", 128),
    "imagenet-swav": ("resnet50", 128),
    "imagenet-byol": ("resnet50", 256),
    "imagenet-moco-v3": ("resnet50", 256),
    "imagenet-moco-v3-vit-s": ("moco_vit_small", 256),
    "imagenet-moco-v3-vit-b": ("moco_vit_base", 256),
    "cifar10-moco-v2": ("resnet18", 128),
    "cifar100-byol": ("resnet18", 128),
    "tiny-imagenet-moco-v2": ("resnet18", 128),
}


@pytest.mark.parametrize("name", GENVIEW_BACKBONES)
def test_networks_are_those_of_genviews_table_9(name):
    """Backbone and projection dimension, read off the method at full size."""
    recipe = RECIPES[name]()
    backbone, dim = GENVIEW_BACKBONES[name]
    assert recipe.backbone == backbone
    method = at_full_size(recipe)
    encoder = next(getattr(method, part) for part in ("encoder", "query", "online") if hasattr(method, part))
    assert [layer for layer in encoder.head if isinstance(layer, torch.nn.Linear)][-1].out_features == dim


def at_full_size(recipe) -> torch.nn.Module:
    """The method without memory for its weights."""
    with torch.device("meta"):
        backbone = sslzoo.create_backbone(**recipe.architecture)
        return method_class(recipe.method)(backbone, **recipe.method_options)


FULL_SIZE = {make().method: name for name, make in RECIPES.items() if name.startswith("imagenet")}
"""One recipe of each method."""


@pytest.mark.parametrize("name", FULL_SIZE.values())
def test_every_method_builds_at_full_size_with_its_optimizer(name):
    recipe = RECIPES[name]()
    method = at_full_size(recipe)
    optimizer = sslzoo.build_optimizer(
        recipe.optimizer, method, lr=recipe.lr, weight_decay=recipe.weight_decay, **recipe.optimizer_options
    )
    for group in optimizer.param_groups:
        assert group.get("momentum", 0.9) == 0.9
        assert group["lr"] == recipe.lr


@pytest.mark.parametrize(
    ("name", "batch", "lr"),
    [
        ("imagenet-simsiam", 512, 0.1),  # facebookresearch/simsiam README.md: 100 epochs, batch 512, lr 0.1
        ("imagenet-vicreg", 512, 0.6),  # facebookresearch/vicreg README.md: 100 epochs, base-lr 0.3, batch 512
        ("imagenet-moco-v3-vit-s", 1024, 6e-4),  # facebookresearch/moco-v3 README.md: 1.5e-4 per 256, batch 1024
        ("imagenet-simclr", 256, 1.2),  # google-research/simclr README.md: 0.075 sqrt(batch)
        ("cifar10-moco-v2", 256, 0.25),
    ],
)
def test_the_rate_follows_the_batch(name, batch, lr):
    recipe = dataclasses.replace(RECIPES[name](), batch_size=batch)
    assert recipe.lr == pytest.approx(lr)
    assert dataclasses.replace(recipe, lr_scaling="none").lr == recipe.base_lr


def test_final_lr_scales_with_the_peak_as_in_the_sources():
    """end_lr = base_lr * 0.001 in main_vicreg.py and Barlow Twins' main.py; DINO's --min_lr is not scaled."""
    for name, follows in {"imagenet-vicreg": True, "imagenet-barlow-twins": True, "imagenet-dino": False}.items():
        recipe = RECIPES[name]()
        twice = dataclasses.replace(recipe, batch_size=2 * recipe.batch_size)
        assert twice.lowest_lr == pytest.approx(recipe.lowest_lr * (2 if follows else 1))
        assert dataclasses.replace(recipe, final_lr=0.5).lowest_lr == 0.5


BICUBIC = {
    "imagenet-vicreg",  # facebookresearch/vicreg augmentations.py
    "imagenet-dino",  # facebookresearch/dino main_dino.py, DataAugmentationDINO; local crops, too
    "imagenet-gen-dino",
    "cifar10-dino",
    "cifar10-gen-dino",
    "imagenet-barlow-twins",  # facebookresearch/barlowtwins main.py, Transform
    "imagenet-byol",  # open-mmlab/mmpretrain configs/_base_/datasets/imagenet_bs32_byol.py
    "imagenet-simclr",  # google-research/simclr data_util.py, crop_and_resize
    "cifar10-simclr",
    "cifar10-moco-v3",  # vturrisi/solo-learn solo/data/pretrain_dataloader.py
    "cifar10-vicreg",
}
"""The sources of the others use torchvision's default, bilinear: MoCo v2 and v3, SimSiam, SwAV, lightly."""


def test_crop_interpolation_matches_the_sources():
    for name, make in RECIPES.items():
        views = make().augmentation
        for augment in (views.first, views.second, views.local or views.first):
            assert augment.interpolation == ("bicubic" if name in BICUBIC else "bilinear"), name


@pytest.mark.parametrize("name", ["cifar10-simclr", "imagenet-simclr", "imagenet-vicreg", "imagenet-barlow-twins"])
def test_zero_init_residual_matches_the_sources(name):
    backbone = sslzoo.create_backbone(**RECIPES[name]().architecture)
    last = [getattr(block, "bn3", block.bn2) for block in backbone.modules() if hasattr(block, "bn2")]
    assert last and not any(norm.weight.any() for norm in last)


def test_asymmetric_lists_blur_one_view_and_solarize_the_other():
    for name in ("imagenet-byol", "imagenet-moco-v3", "imagenet-vicreg", "imagenet-barlow-twins", "imagenet-dino"):
        views = RECIPES[name]().augmentation
        assert (views.first.blur_p, views.second.blur_p) == (1.0, 0.1)
        assert (views.first.solarize_p, views.second.solarize_p) == (0.0, 0.2)
        assert views.first.jitter == views.second.jitter == (0.4, 0.4, 0.2, 0.1)


def test_crops_are_those_of_the_sources():
    smallest = {
        "imagenet-simsiam": 0.2, "imagenet-moco-v3": 0.2, "imagenet-moco-v3-vit-b": 0.08, "imagenet-byol": 0.08,
        "imagenet-vicreg": 0.08, "imagenet-simclr": 0.08, "imagenet-swav": 0.14, "imagenet-dino": 0.4,
    }  # fmt: skip
    for name, area in smallest.items():
        views = RECIPES[name]().augmentation
        assert views.first.crop_scale == views.second.crop_scale == (area, 1.0)
    local = {"imagenet-swav": (96, (0.05, 0.14), 6), "imagenet-dino": (96, (0.05, 0.4), 8)}
    for name, expected in local.items():
        views = RECIPES[name]().augmentation
        assert (views.local.size, views.local.crop_scale, views.local_count) == expected


def test_moco_v2_recipes_split_batch_norm_into_8():
    """facebookresearch/moco trains on 8 GPUs with batch norm per GPU; its CIFAR-10 demo sets --bn-splits 8."""
    names = [name for name, make in RECIPES.items() if make().method == "moco-v2"]
    assert len(names) == 5
    for name in names:
        recipe = RECIPES[name]()
        assert recipe.method_options["splits"] == 8
        norms = [part for part in at_full_size(recipe).modules() if isinstance(part, _BatchNorm)]
        assert norms and {type(norm).__name__ for norm in norms} == {"SplitBatchNorm"}


def test_policies_are_those_of_the_papers():
    policies = {name: make().policy for name, make in RECIPES.items()}
    assert {name for name, policy in policies.items() if policy == "gensis"} == {
        name for name in policies if name.endswith("gen-dino")
    }
    assert {name for name, policy in policies.items() if policy == "gencl"} == {"imagenet-vicreg"}
    assert RECIPES["imagenet-vicreg"]().view_probability == 0.5


def test_what_describes_a_recipe_is_no_part_of_its_record():
    recipe = RECIPES["imagenet-byol"]()
    told = recipe.record()
    assert "expected" not in told and "dataset" not in told
    assert told["policy"] == "genview" and told["base_lr"] == 0.3
    assert told == dataclasses.replace(recipe, expected="something else").record()


def smallest(name: str):
    """The recipe with a tiny backbone, tiny heads and tiny views."""
    recipe = RECIPES[name]()
    plan = recipe.augmentation
    views = dataclasses.replace(
        plan,
        first=dataclasses.replace(plan.first, size=32),
        second=dataclasses.replace(plan.second, size=32),
        local=plan.local and dataclasses.replace(plan.local, size=16),
        local_count=min(2, plan.local_count),
    )
    backbone, options = "resnet10", {"cifar_stem": True, "stem_stride": 2, "width": 4}
    if recipe.backbone.startswith("dino_vit"):
        backbone = "dino_vit_tiny"
        options = {"depth": 1, "embed_dim": 24, "num_heads": 2, **recipe.backbone_options}
    heads = {**recipe.method_options, **TINY_HEADS[recipe.method]}
    small = {"backbone": backbone, "backbone_options": options, "method_options": heads, "augmentation": views}
    return dataclasses.replace(recipe, **small, batch_size=8)


def take_a_step(recipe) -> None:
    """Take an optimizer step at the highest learning rate: everything stays finite and the backbone moves."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8, 2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    batch = PairBatch(
        real=pixels[:, 0],
        views=pixels[:, 1:],
        view_exists=torch.arange(8)[:, None] % 4 > 0,
        index=torch.arange(8),
        label=torch.zeros(8, dtype=torch.long),
        sizes=torch.full((8, 2, 2), 32),
    )
    method = method_class(recipe.method)(sslzoo.create_backbone(**recipe.architecture), **recipe.method_options).train()
    optimizer = sslzoo.build_optimizer(
        recipe.optimizer, method, lr=recipe.lr, weight_decay=recipe.weight_decay, **recipe.optimizer_options
    )
    before = [parameter.detach().clone() for parameter in method.parameters()]
    views = make_views(batch, recipe, generator)
    assert len(views) == 2 + recipe.augmentation.local_count
    loss = method(views)["loss"]
    loss.backward()
    optimizer.step()
    method.after_step(0.5)
    after = list(method.parameters())
    assert loss.isfinite() and all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_a_step(name):
    take_a_step(smallest(name))


FAMILIES = {
    "timm/test_resnet": {},
    "timm/test_vit": {},
    "timm/test_convnext": {},
    "timm/test_efficientnet": {},
    "timm/swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)},
}


def with_backbone(recipe, backbone: str, said: list[str]):
    """Return the recipe adapted to a backbone, with options that make the backbone small."""
    changed = dataclasses.replace(recipe, backbone=backbone)
    return fit_backbone(
        dataclasses.replace(changed, backbone_options={**changed.backbone_options, **FAMILIES[backbone]}), said.append
    )


@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_recipe_builds_with_timm_networks_or_suggests_another(backbone):
    found = {}
    for name, make in RECIPES.items():
        recipe, said = make(), []
        key = (str(recipe.backbone_options), tuple(recipe.crop_sizes))
        if key not in found:
            try:
                found[key] = with_backbone(recipe, backbone, said).backbone_options
            except ValueError as error:
                found[key] = error
                assert f"16 px for {name}, got {backbone}" in str(error) and "choose another --backbone" in str(error)
            own = recipe.backbone_options.keys() - {"drop_path_rate"}
            assert said == [] or all(option in said[0] for option in own)
            assert bool(said) == bool(own)
    refused = [key for key, value in found.items() if isinstance(value, ValueError)]
    assert len(refused) == (1 if "convnext" in backbone else 0)  # small-swav's local crops


@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("name", ["small-dino", "small-moco-v2", "small-swav", "imagenet-dino"])
def test_timm_networks_take_a_step(name, backbone):
    if name == "small-swav" and "convnext" in backbone:
        return
    recipe = dataclasses.replace(smallest(name), backbone_options=RECIPES[name]().backbone_options)
    views = recipe.augmentation
    if views.local and "imagenet" in name:  # 32 and 64 px stand for 96 and 224
        local = dataclasses.replace(views.local, size=32)
        full = dataclasses.replace(views.first, size=64)
        views = dataclasses.replace(views, first=full, second=full, local=local)
    take_a_step(with_backbone(dataclasses.replace(recipe, augmentation=views), backbone, []))


def test_unsupported_options_of_torchvision_networks_are_dropped():
    recipe, said = dataclasses.replace(RECIPES["small-simclr"](), backbone="resnet18"), []
    assert fit_backbone(recipe, said.append).backbone_options == {"cifar_stem": True}
    assert said == ["resnet18 has no option stem_stride, width, set by small-simclr; ignored"]
    own = RECIPES["small-simclr"]()
    assert fit_backbone(own, said.append) == own and len(said) == 1
    with pytest.raises(ValueError, match="expected the name of a backbone, got 'resnet81'; did you mean resnet18"):
        fit_backbone(dataclasses.replace(own, backbone="resnet81"), said.append)


def test_the_list_shows_every_recipe():
    shown = io.StringIO()
    Console(file=shown, width=WIDTH).print(recipe_table(RECIPES))
    rows = {line.split()[0]: line for line in shown.getvalue().splitlines() if line.strip()}
    assert set(RECIPES) <= set(rows)
    assert all(word in rows["imagenet-vicreg"] for word in ("resnet50", "100", "800", "68.5"))
    assert "not yet run" in rows["cifar10-dino"]


def test_typo_in_recipe_name_suggests_the_closest():
    with pytest.raises(ValueError, match=r"got 'cifar10-dno'; did you mean cifar10-dino or "):
        parse_arguments(["cifar10-dno", "--data", "x"])
    with pytest.raises(ValueError, match=r"got 'quickstrt'; did you mean quickstart"):
        parse_arguments(["quickstrt"])


@pytest.mark.parametrize("recipe", [["small-dino", "--data", "x"], ["quickstart"], []])
def test_typo_in_option_suggests_the_closest(recipe):
    with pytest.raises(SystemExit) as end:
        pretrain_command([*recipe, "--epohcs", "3"])
    assert "got --epohcs; did you mean --epochs" in str(end.value)


def test_the_arguments_of_a_recipe_and_of_the_loop_are_read():
    chosen = parse_arguments(["small-simclr", "--data", "x", "--epochs", "3", "--lr", "0.5"])
    assert (chosen.recipe.name, chosen.recipe.epochs, chosen.recipe.base_lr) == ("small-simclr", 3, 0.5)


def test_curve_of_one_point_is_visible(tmp_path):
    for name, steps in {"one": 1, "two": 2}.items():
        (tmp_path / name).mkdir()
        rows = [json.dumps({"step": step, "loss": 1.0}) for step in range(steps)]
        (tmp_path / name / "log.jsonl").write_text("\n".join(rows) + "\n")
        draw_curves(tmp_path / name, tmp_path / f"{name}.png")
        red, _, blue = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), int).transpose(2, 0, 1)
        assert (blue - red > 100).sum() > 20  # the first color of matplotlib is blue
