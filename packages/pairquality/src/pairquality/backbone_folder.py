"""Backbone folders: backbone.safetensors (torchvision or timm names, no head) and backbone.json.

The networks are built up to their last map, Float[b d rows columns].
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from pairquality.encoder import IMAGENET_MEAN, IMAGENET_STD, weights_hash
from pairquality.recipe import Recipe, fill, read_tensors
from pairquality.timm_models import create, timm_features

DESCRIPTION = "backbone.json"
TENSORS = "backbone.safetensors"
TIMMS = {
    "moco_vit_small": "timm/vit_small_patch16_224",
    "moco_vit_base": "timm/vit_base_patch16_224",
    "dino_vit_tiny": "timm/vit_tiny_patch16_224",
    "dino_vit_small": "timm/vit_small_patch16_224",
    "dino_vit_base": "timm/vit_base_patch16_224",
}
"""Vision transformers of sslzoo, which are timm's at the size they were trained for."""
MOCO_HEADS = 12
"""Of both of MoCo v3's (facebookresearch/moco-v3@c349e6e vits.py), where timm's small one has 6."""
OWN = "give FeatureEncoder(module, size, mean, std, name) your own module"


def backbone_recipe(folder: Path, size: int | None, *, normalised: bool = False) -> Recipe:
    """The network that a folder describes, with its weights.

    Args:
        folder: holds both files.
        size: of its images; without it the recipe's image_size.
        normalised: mean and std are known otherwise.

    Raises:
        ValueError: a file is missing or broken, the two do not belong together, or the architecture is unknown.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        architecture, expected, recipe = (description[key] for key in ("architecture", "hash", "recipe"))
        name, options = architecture["name"], {key: value for key, value in architecture.items() if key != "name"}
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / DESCRIPTION} is broken ({type(error).__name__}: {error}): export it again."
        ) from error
    if name in TIMMS:
        name, options = TIMMS[name], _timms_options(name, options)
    _refuse_size(name, options, size, folder)
    module = _build(name, options, folder)
    fill(module, read_tensors(folder / TENSORS), folder / TENSORS)
    if weights_hash(module) != expected:
        raise ValueError(f"{folder}: {TENSORS} is not the one that {DESCRIPTION} describes; export both again.")
    absent = [key for key in ("image_size", *(() if normalised else ("mean", "std"))) if key not in recipe]
    if absent and not (absent == ["image_size"] and size):
        raise ValueError(
            f"{folder / DESCRIPTION} does not say {', '.join(absent)} in its recipe: give size, mean, std."
        )
    return Recipe(
        module=module,
        size=size or recipe["image_size"],
        mean=tuple(recipe.get("mean", IMAGENET_MEAN)),
        std=tuple(recipe.get("std", IMAGENET_STD)),
        take_map=timm_features if name.startswith("timm/") else None,
    )


def _build(name: str, options: dict[str, Any], folder: Path) -> nn.Module:
    library, _, model = name.rpartition("/")
    try:
        if library == "timm" and timm.is_model(model):
            return create(model, options.pop("image_size", None), **options)
        if name == "resnet10":
            return narrow_resnet(**options)
        if not library and name in _torchvision_resnets():
            return torchvision_trunk(name, **options)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{folder / DESCRIPTION}: {name} takes no such options ({error}); {OWN}.") from error
    raise ValueError(f"{folder / DESCRIPTION}: the architecture {name!r} is unknown here; {OWN}.")


def _timms_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Without what only a training needs."""
    heads = {"num_heads": MOCO_HEADS} if name.startswith("moco_") else {}
    kept = {option: value for option, value in options.items() if option != "freeze_patch_embed"}
    return {"image_size": 224, **heads, **kept}


def _refuse_size(name: str, options: dict[str, Any], size: int | None, folder: Path) -> None:
    """Vision transformers take images of the size they were built for, unless they were told to take any."""
    config = timm.get_pretrained_cfg(name.removeprefix("timm/")) if name.startswith("timm/") else None
    fixed = config is not None and config.fixed_input_size and not options.get("dynamic_img_size")
    if fixed and size not in (None, options.get("image_size")):
        raise ValueError(f"{folder} holds {name} for images of {options.get('image_size')} px alone: leave size out.")


def _torchvision_resnets() -> list[str]:
    models = torchvision.models
    names = models.list_models(module=models)
    return [name for name in names if models.get_model_builder(name).__module__ == models.resnet.__name__]


def torchvision_trunk(
    name: str, *, cifar_stem: bool = False, image_size: int | None = None, **options: Any
) -> nn.Module:
    """A ResNet of torchvision up to its last map; with a 3x3 first convolution and no pooling for small images."""
    network = torchvision.models.get_model(name, weights=None, **options)
    parts = OrderedDict((part, child) for part, child in network.named_children() if part not in ("avgpool", "fc"))
    if cifar_stem:
        parts |= {"conv1": nn.Conv2d(3, 64, 3, 1, 1, bias=False), "maxpool": nn.Identity()}
    return nn.Sequential(parts)


def narrow_resnet(
    *, width: int = 32, cifar_stem: bool = False, stem_stride: int = 1, image_size: int | None = None
) -> nn.Module:
    """A ResNet of one basic block per stage and free width, up to its last map; named as in torchvision."""
    stem = (
        nn.Conv2d(3, width, 3, stem_stride, 1, bias=False) if cifar_stem else nn.Conv2d(3, width, 7, 2, 3, bias=False)
    )
    pool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
    parts = OrderedDict[str, nn.Module](conv1=stem, bn1=nn.BatchNorm2d(width), relu=nn.ReLU(), maxpool=pool)
    for stage, (wide_in, wide_out) in enumerate([(1, 1), (1, 2), (2, 4), (4, 8)], 1):
        parts[f"layer{stage}"] = nn.Sequential(_block(width * wide_in, width * wide_out))
    return nn.Sequential(parts)


def _block(wide_in: int, wide_out: int) -> nn.Module:
    if wide_in == wide_out:
        return BasicBlock(wide_in, wide_out)
    shortcut = nn.Sequential(nn.Conv2d(wide_in, wide_out, 1, 2, bias=False), nn.BatchNorm2d(wide_out))
    return BasicBlock(wide_in, wide_out, 2, shortcut)
