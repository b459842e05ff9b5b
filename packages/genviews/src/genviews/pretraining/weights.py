"""Load the initial weights of a backbone (--weights).

The architecture of the weights becomes the recipe's unless --backbone names another one, and images are normalized as
the weights expect if that is known. Loading is strict; only heads, and branches other than the encoder, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import sslzoo
from genviews.recipes import RECIPES, Recipe
from genviews.recipes.augmentations import normalize
from genviews_core.backbones import (
    Architecture,
    adapt_first_layer,
    backbone_hash,
    build_described,
    channels_of,
    describe,
    is_backbone_folder,
    load_timm,
    read_description,
)
from genviews_core.backbones.fields import options_of
from genviews_core.backbones.folder import IMAGENET
from genviews_core.backbones.names import TIMM, TORCHVISION_RESNETS
from genviews_core.backbones.vit_positions import fit_positions
from genviews_core.channels import RGB
from sslzoo.official.formats import unwrap
from sslzoo.official.load import HEADS, UNKNOWN
from sslzoo.official.reading import read_checkpoint

TORCHVISION = "torchvision/"
SIZES = ("image_size", "img_size")
"""Options that the recipe's crops determine."""
TRAINING_OPTIONS = ("drop_path_rate", "dynamic_img_size", "freeze_patch_embed", "zero_init_residual")
"""Options of a recipe's backbone that no tensor's name or shape depends on; they are kept."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Tensors to start from.

    Attributes:
        source: name or path, as given by the user.
        architecture: arguments of `create_backbone`, without sizes.
        tensors: tensors by torchvision's or timm's names.
        hash: hash of the tensors, as computed by `backbone_hash`.
        mean: normalization mean that the weights expect; None if unknown.
        std: normalization standard deviation, likewise.
        value_range: values of each channel that were mapped to 0 and 255, for other than three channels.
    """

    source: str
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    hash: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, ...] | None = None

    def record(self) -> dict[str, str]:
        """Return source and hash, to be stored in backbone.json."""
        return {"source": self.source, "hash": self.hash}

    def load_into(self, network: nn.Module, image_size: int) -> None:
        """Load the tensors; position embeddings are interpolated to the image size.

        The first layer of three channels is adapted to the channels of the network.

        Raises:
            ValueError: names or shapes differ.
        """
        tensors, own = dict(self.tensors), network.state_dict()
        positions = tensors.get("pos_embed")
        if positions is not None and "pos_embed" in own and positions.shape != own["pos_embed"].shape:
            tensors = fit_positions(tensors, image_size)
        tensors |= _first_layer(tensors, own)
        if faults := _mismatch(tensors, own):
            raise ValueError(
                f"expected tensors of {self.architecture['name']} in --weights {self.source}, got {faults}; give "
                "weights of this network, or its own one with --backbone"
            )
        network.load_state_dict(tensors)


def _first_layer(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first convolution or patch embedding for the channels of the network, if they differ from three."""
    name = next((name for name, tensor in own.items() if tensor.ndim == 4), "")
    given = tensors.get(name)
    if given is None or given.ndim != 4 or given.shape[1] == own[name].shape[1] or given.shape[1] != RGB:
        return {}
    return {name: adapt_first_layer(given, own[name].shape[1])}


def open_weights(
    recipe: Recipe, source: str | None, log: Callable[[str], None], *, channels: int = 3
) -> tuple[Recipe, InitialWeights | None]:
    """Open the weights to start from, and adapt the recipe's backbone and normalization to them.

    Args:
        recipe: the recipe; a backbone that is not its own default one must be that of the weights.
        source: a backbone folder, a checkpoint file that `sslzoo.load_official_checkpoint` reads, a state dict of the
            backbone, timm/NAME[.TAG] or torchvision/NAME; None for random weights.
        log: called with messages about adaptations.
        channels: channels of the images.

    Raises:
        ValueError: the source is none of these, is damaged, or is of another network than --backbone.
    """
    if source is None:
        return recipe, None
    weights = _open(source, recipe, log)
    architecture = {name: value for name, value in weights.architecture.items() if name not in SIZES}
    name = architecture.pop("name")
    if _is_given(recipe) and name != _untagged(recipe.backbone):
        raise ValueError(
            f"expected weights of --backbone {recipe.backbone}, got those of {name} in {source}; leave --backbone out"
        )
    if name != recipe.backbone and not _is_given(recipe):
        log(f"backbone {name}, as in {source}, instead of the recipe's {recipe.backbone}")
    kept = {option: value for option, value in recipe.backbone_options.items() if option in TRAINING_OPTIONS}
    recipe = replace(recipe, backbone=name, backbone_options=kept | architecture)
    rgb = channels == channels_of(architecture) == RGB
    if rgb and weights.mean and weights.std and (weights.mean, weights.std) != _normalization(recipe):
        log(f"images are normalized as {source} expects: mean {weights.mean}, std {weights.std}")
        recipe = normalize(recipe, weights.mean, weights.std)
    log(f"starting from {source} (hash {weights.hash})")
    return recipe, weights


def _open(source: str, recipe: Recipe, log: Callable[[str], None]) -> InitialWeights:
    path = Path(source)
    if is_backbone_folder(path):
        about = read_description(path)
        mean, std = (about.images.get(name) for name in ("mean", "std"))
        tensors = build_described(about).state_dict()
        return InitialWeights(
            source=source,
            architecture=about.architecture,
            tensors=tensors,
            hash=about.hash,
            mean=mean,
            std=std,
            value_range=about.images.get("value_range"),
        )
    if path.is_file():
        return _from_file(path, recipe, log)
    if source.startswith(TIMM):
        network, images = load_timm(source.removeprefix(TIMM), size=recipe.image_size)
        return _downloaded(source, _untagged(source), network, images)
    if source.startswith(TORCHVISION):
        name = source.removeprefix(TORCHVISION)
        if name not in TORCHVISION_RESNETS:
            raise ValueError(f"expected a ResNet of torchvision, got {source}; one of {', '.join(TORCHVISION_RESNETS)}")
        return _downloaded(source, name, sslzoo.create_backbone(name, weights="DEFAULT"), IMAGENET)
    raise ValueError(
        "expected --weights with a backbone folder, a checkpoint file, timm/NAME or torchvision/NAME, got "
        f"{source}; check the path"
    )


def _downloaded(source: str, name: str, network: nn.Module, images: Mapping[str, Any]) -> InitialWeights:
    return InitialWeights(
        source=source,
        architecture={"name": name},
        tensors=network.state_dict(),
        hash=backbone_hash(network),
        mean=images["mean"],
        std=images["std"],
    )


def _from_file(path: Path, recipe: Recipe, log: Callable[[str], None]) -> InitialWeights:
    network, about = _read(path, recipe)
    tensors = network.state_dict()
    if left := _left_out(path, len(tensors)):
        log(left)
    images = about["recipe"]
    known = about["method"] != UNKNOWN or about["architecture"]["name"].startswith(TIMM)
    return InitialWeights(
        source=str(path),
        architecture=about["architecture"],
        tensors=tensors,
        hash=backbone_hash(network),
        mean=tuple(images["mean"]) if known else None,
        std=tuple(images["std"]) if known else None,
    )


def _read(path: Path, recipe: Recipe) -> tuple[nn.Module, dict[str, Any]]:
    """Read a file as the recipe's backbone or, unless --backbone was given, as the network that its tensors fit."""
    name = recipe.backbone
    known = options_of(name).keys() - {*SIZES}
    own = {"name": name, **{option: value for option, value in recipe.backbone_options.items() if option in known}}
    candidates: list[Architecture | None] = [own, {"name": name}]
    hint = f"give weights of --backbone {name}"
    if not _is_given(recipe):
        candidates, hint = [*candidates, None], "name its network with --backbone"
    problems = []
    for architecture in candidates:
        try:
            return sslzoo.load_official_checkpoint(path, architecture)
        except ValueError as error:
            problems.append(error)
    problem = problems[0 if _is_given(recipe) else -1]
    raise ValueError(f"--weights {problem}; {hint}") from problem


def _left_out(path: Path, kept: int) -> str:
    """Return which tensors of a file are not the backbone's; "" for none."""
    content = read_checkpoint(path)
    states = [state for state in map(unwrap, (content, *content.values())) if state]
    names = list(max(states, key=len)) if states else []
    if len(names) <= kept:
        return ""
    heads = sorted({name.partition(".")[0] for name in names} & {*HEADS})
    what = f"classifier: {', '.join(heads)}" if heads else "heads or other branches"
    return f"{len(names) - kept} of {len(names)} tensors in {path} are not the backbone's ({what}) and were left out"


def _mismatch(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    wrong = [name for name, tensor in tensors.items() if name in own and own[name].shape != tensor.shape]
    faults = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}" for name in wrong],
    }
    return describe({f"{len(names)} {kind}": names for kind, names in faults.items() if names})


def _is_given(recipe: Recipe) -> bool:
    """Return whether the backbone is not the recipe's default one."""
    return recipe.name not in RECIPES or recipe.backbone != RECIPES[recipe.name]().backbone


def _untagged(name: str) -> str:
    """Return a timm name without the tag of its weights."""
    return name.partition(".")[0] if name.startswith(TIMM) else name


def _normalization(recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    first = recipe.augmentation.first
    return tuple(first.mean), tuple(first.std)


def build_backbone(recipe: Recipe, weights: InitialWeights | None) -> nn.Module:
    """Return the backbone of a recipe, with random weights or those given.

    Raises:
        ValueError: the weights do not fit.
    """
    network = sslzoo.create_backbone(**recipe.architecture)
    if weights:
        weights.load_into(network, recipe.image_size)
    return network
