"""Opening the checkpoints of official repositories."""

from pathlib import Path
from typing import Any

from torch import nn

from genviews_core.backbones import Architecture, create_backbone
from genviews_core.backbones.names import DINO_VITS
from genviews_core.backbones.vit_positions import resize_positions
from sslzoo.architectures import find_architecture, misfit
from sslzoo.official.layout import Layout
from sslzoo.official.layouts import LAYOUTS, NAMED
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
    image_size: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a checkpoint in the layout of an official repository, strictly: every tensor has its place.

    Nothing in the file is executed. Of two branches it is the one that the repository itself evaluates: MoCo's query
    encoder, MoCo v3's base encoder, BYOL's online network, DINO's teacher.

    Args:
        path: a file of torch.save or a .safetensors.
        architecture: create_backbone's name or arguments; left out, found by names and shapes.
        layout: what the file is; left out, found by names. Files that hold the network alone do not show their
            method, nor that SimCLR's want images without normalisation: say "dino-backbone", "vicreg-backbone",
            "barlow-twins-backbone", "moco-v3-deit", "simclr-converter" or "byol-convert".
        image_size: pixels of the images, where not those of the training (224 for ResNets). A vision transformer's
            positions are then interpolated as facebookresearch/dino does.

    Returns:
        The network in evaluation mode, on the CPU, and what it is: the arguments of save_backbone, so that
        `save_backbone(folder, backbone, **about)` writes it. `about["recipe"]` tells the images (image_size, mean,
        std) and the source (file, sha256, layout, origin and licence).

    Raises:
        ValueError: no such file, not a checkpoint, code in it, an unknown layout, or tensors without place.
    """
    path = Path(path)
    content = read_checkpoint(path)
    found, tensors = _find_layout(path, content, layout)
    try:
        kept = found.backbone_of(tensors)
        architecture = _architecture(found, kept, architecture)
    except ValueError as error:
        raise ValueError(f"{path} ({found.name}) {error}.") from error
    if image_size is not None and "pos_embed" in kept:
        kept, architecture = _resize(kept, architecture, image_size)
    backbone = create_backbone(**architecture)
    backbone.load_state_dict(kept)
    about = _about(path, found, architecture, content)
    about["recipe"]["image_size"] = image_size or architecture.get("image_size", found.image_size)
    return backbone.eval(), about


def _find_layout(path: Path, content: dict[str, Any], name: str | None) -> tuple[Layout, Tensors]:
    known = {layout.name: layout for layout in (*LAYOUTS, *NAMED)}
    if name is not None and name not in known:
        raise ValueError(f"Unknown layout {name!r}; known: {', '.join(known)}.")
    for layout in LAYOUTS if name is None else [known[name]]:
        tensors = layout.tensors(content)
        if tensors is not None:
            return layout, tensors
    wanted = "no layout that is known here" if name is None else f"not the layout {name}"
    found = [f"{key} ({', '.join(list(map(str, value))[:3])}, ...)" if isinstance(value, dict) else str(key)
             for key, value in list(content.items())[:8]]  # fmt: skip
    raise ValueError(f"{path} has {wanted}; found {', '.join(found)}. Known: {', '.join(known)}.")


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
    if "pos_embed" in tensors and not tensors["pos_embed"][:, 0].any():  # fixed positions leave the class token's at 0
        return {**architecture, "name": MOCO_VITS.get(architecture["name"], architecture["name"])}
    if layout.method == "DINO":
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
        "recipe": {"mean": list(layout.mean), "std": list(layout.std), "source": source},
        "epoch": epoch if isinstance(epoch, int) else None,
        "data": UNTOLD,
    }
