"""Load checkpoints of official repositories."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genviews_core.backbones import Architecture, create_backbone, describe, timm_images
from genviews_core.backbones.names import DINO_VITS
from genviews_core.backbones.vit_positions import resize_patch_positions, resize_positions
from sslzoo.architectures import find_architecture, misfit
from sslzoo.finite import all_finite
from sslzoo.official.finding import by_prefix, find_layout
from sslzoo.official.layout import Layout
from sslzoo.official.read import read_checkpoint, sha256
from sslzoo.official.rename import Tensors

MOCO_VITS = {"timm/vit_small_patch16_224": "moco_vit_small", "timm/vit_base_patch16_224": "moco_vit_base"}
DINOS = {f"timm/{timm_name}": name for name, (timm_name, *_) in DINO_VITS.items()}
UNTOLD = "not told by the file"


def open_official(
    path: str | Path,
    architecture: str | Architecture | None = None,
    *,
    layout: str | None = None,
    prefix: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    allow_nonfinite: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the backbone of a checkpoint in the layout of an official repository; loading is strict.

    No code in the file is executed. Of two branches, the one that the repository itself evaluates is loaded: MoCo's
    query encoder, MoCo v3's base encoder, BYOL's online network, DINO's teacher.

    Args:
        path: a file written by torch.save, or a .safetensors file.
        architecture: name or arguments for create_backbone; default: inferred from names and shapes.
        layout: layout of the file; default: inferred from names. Files with only the network do not reveal their
            method, nor that SimCLR's networks take images without normalization; for these give "dino-backbone",
            "vicreg-backbone", "barlow-twins-backbone", "moco-v3-deit", "simclr-converter" or "byol-convert".
        prefix: for other layouts: prefix of the names of the backbone's tensors; all other tensors are ignored.
        image_size: size of the input images in pixels; default: that of the training (224 for ResNets). Positions of
            vision transformers are interpolated as in facebookresearch/dino, those of DINOv2 with registers as in
            DINOv2.
        mean: normalization mean of the images; default: that of the layout, or timm's.
        std: normalization standard deviation, likewise.
        allow_nonfinite: accept tensors with NaN or infinity.

    Returns:
        The network in evaluation mode on the CPU, and its description, so that
        `save_backbone(folder, backbone, **about)` writes it. `about["recipe"]` holds the preprocessing (image_size,
        mean, std) and the source (file, sha256, layout, origin and licence).

    Raises:
        ValueError: the file does not exist, is not a checkpoint or contains code, the layout is unknown, tensors are
            unexpected, or tensors hold NaN or infinity.
    """
    path = Path(path)
    content = read_checkpoint(path)
    own = _own_names(architecture)
    found, tensors = by_prefix(path, content, prefix) if prefix else find_layout(path, content, layout, own)
    try:
        kept = found.backbone_of(tensors, own)
        architecture = _architecture(found, kept, architecture)
    except ValueError as error:
        raise ValueError(f"{path} ({found.name}) {error}.") from error
    if not allow_nonfinite:
        _refuse_nonfinite(path, kept)
    if image_size is not None and "pos_embed" in kept:
        kept, architecture = _resize(kept, architecture, image_size)
    backbone = create_backbone(**architecture)
    backbone.load_state_dict(kept)
    about = _about(path, found, architecture, content)
    given = {"image_size": image_size, "mean": mean and list(mean), "std": std and list(std)}
    about["recipe"] |= {name: value for name, value in given.items() if value is not None}
    return backbone.eval(), about


def _refuse_nonfinite(path: Path, tensors: Tensors) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    if odd := [name for name, tensor in tensors.items() if not all_finite([tensor])]:
        raise ValueError(
            f"{path} holds NaN or infinity ({describe({'found in': odd})}); take an earlier checkpoint of that "
            "training, or allow it: --allow-nonfinite, allow_nonfinite=True"
        )


def _own_names(given: str | Architecture | None) -> frozenset[str]:
    """Return the tensor names of a given architecture; empty if none is given."""
    if given is None:
        return frozenset()
    architecture: Architecture = {"name": given} if isinstance(given, str) else given
    with torch.device("meta"):
        return frozenset(create_backbone(**architecture).state_dict())


def _architecture(layout: Layout, tensors: Tensors, given: str | Architecture | None) -> Architecture:
    if given is None:
        architecture, faults = find_architecture(tensors)
    else:
        architecture = {"name": given} if isinstance(given, str) else given
        faults = misfit(tensors, architecture)
    if faults:
        raise ValueError(f"does not fit {architecture['name']}: {faults}")
    if given is not None:
        return architecture
    if layout.same_padding:
        architecture = _same_padded(architecture)
    if architecture.get("cifar_stem") and layout.stem_padding != 1:
        return {**architecture, "stem_padding": layout.stem_padding}
    if architecture["name"].startswith("timm/") and "dinov2" in architecture["name"]:
        return architecture
    if "pos_embed" in tensors and not tensors["pos_embed"][:, 0].any():  # fixed positions leave the class token's at 0
        return {**architecture, "name": MOCO_VITS.get(architecture["name"], architecture["name"])}
    if layout.method in ("DINO", "DINO (student)"):
        return {**architecture, "name": DINOS.get(architecture["name"], architecture["name"])}
    return architecture


def _same_padded(architecture: Architecture) -> Architecture:
    """DeepMind's networks: ResNet-50 of width 1, or ResNet-200 of width 2."""
    name: str = architecture["name"]
    widened = {"name": "widened_resnet", "depth": 50} if name == "resnet50" else architecture
    return {**widened, "same_padding": True}


def _resize(tensors: Tensors, architecture: Architecture, image_size: int) -> tuple[Tensors, Architecture]:
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    if image_size % patch:
        raise ValueError(f"image_size {image_size} is no multiple of this network's patches of {patch} pixels.")
    side = image_size // patch
    if "reg_token" in tensors:
        positions = resize_patch_positions(tensors["pos_embed"], side, side)
    else:
        positions = resize_positions(tensors["pos_embed"], side, side)
    return {**tensors, "pos_embed": positions}, {**architecture, "image_size": image_size}


def _about(path: Path, layout: Layout, architecture: Architecture, content: dict[str, Any]) -> dict[str, Any]:
    epoch = content.get("epoch")
    source = {
        "file": path.name,
        "sha256": sha256(path),
        "layout": layout.name,
        "origin": layout.source,
        "licence": layout.licence,
    }
    return {
        "architecture": architecture,
        "method": layout.method or UNTOLD,
        "recipe": {**_images(layout, architecture), "source": source},
        "epoch": epoch if isinstance(epoch, int) else None,
        "data": UNTOLD,
    }


def _images(layout: Layout, architecture: Architecture) -> dict[str, Any]:
    """Return image_size, mean and std: those of the layout, or timm's for timm networks of unknown method."""
    name: str = architecture["name"]
    images: dict[str, Any] = {"size": layout.image_size, "mean": layout.mean, "std": layout.std}
    if layout.method is None and name.startswith("timm/"):
        images = timm_images(name.removeprefix("timm/"))
    size = architecture.get("image_size", 32 if architecture.get("cifar_stem") else images["size"])
    return {"image_size": size, "mean": list(images["mean"]), "std": list(images["std"])}
