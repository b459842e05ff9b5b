"""Load checkpoints of official repositories."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genviews_core.backbones import Architecture, channels_of, create_backbone, describe, timm_images
from genviews_core.backbones.names import DINO_VITS
from genviews_core.backbones.vit_positions import fit_positions
from sslzoo.backbones import infer_architecture, shape_mismatch
from sslzoo.official.formats import CheckpointFormat
from sslzoo.official.key_mapping import Tensors
from sslzoo.official.reading import detect_format, read_checkpoint, select_prefix, sha256
from sslzoo.statistics import all_finite

MOCO_VITS = {"timm/vit_small_patch16_224": "moco_vit_small", "timm/vit_base_patch16_224": "moco_vit_base"}
DINOS = {f"timm/{timm_name}": name for name, (timm_name, *_) in DINO_VITS.items()}
UNKNOWN = "unknown"
HEADS = ("fc", "linear", "head", "classifier")
"""Names of the last layer in torchvision, akamaster/pytorch_resnet_cifar10@d5489e8 and timm."""


def load_official_checkpoint(
    path: str | Path,
    architecture: str | Architecture | None = None,
    *,
    format: str | None = None,
    prefix: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    allow_nonfinite: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the backbone of a checkpoint in the format of an official repository; loading is strict.

    No code in the file is executed. Of two branches, the one that the repository itself evaluates is loaded: MoCo's
    query encoder, MoCo v3's base encoder, BYOL's online network, DINO's teacher.

    Args:
        path: a file written by torch.save, or a .safetensors file.
        architecture: name or arguments for create_backbone; default: inferred from names and shapes.
        format: format of the file; default: inferred from names. Files with only the network do not reveal their
            method, nor that SimCLR's networks take images without normalization; for these give "dino-backbone",
            "vicreg-backbone", "barlow-twins-backbone", "moco-v3-deit", "simclr-converter" or "byol-convert".
        prefix: for other formats: prefix of the names of the backbone's tensors; all other tensors are ignored.
        image_size: size of the input images in pixels; default: that of the training (224 for ResNets). Positions of
            vision transformers are interpolated as in facebookresearch/dino, those of DINOv2 with registers as in
            DINOv2.
        mean: normalization mean of the images; default: that of the format, or timm's.
        std: normalization standard deviation, likewise.
        allow_nonfinite: accept tensors with NaN or infinity.

    Returns:
        The network in evaluation mode on the CPU, and its description, so that
        `save_backbone(folder, backbone, **about)` writes it. `about["recipe"]` holds the preprocessing (image_size,
        mean, std) and the source (file, sha256, layout, origin and licence).

    Raises:
        ValueError: the file does not exist, is not a checkpoint or contains code, the format is unknown, tensors are
            unexpected, or tensors hold NaN or infinity.
    """
    path = Path(path)
    content = read_checkpoint(path)
    own = _own_names(architecture)
    select = select_prefix(path, content, prefix) if prefix else detect_format(path, content, format, own)
    detected, tensors = select
    try:
        kept = detected.backbone_of(tensors, own)
        architecture = _architecture(detected, kept, architecture)
    except ValueError as error:
        raise ValueError(f"{path} ({detected.name}) {error}") from error
    if not allow_nonfinite:
        _require_finite(path, kept)
    if image_size is not None and "pos_embed" in kept:
        kept, architecture = fit_positions(kept, image_size), {**architecture, "image_size": image_size}
    backbone = create_backbone(**architecture)
    backbone.load_state_dict(kept)
    about = _about(path, detected, architecture, content)
    given = {"image_size": image_size, "mean": mean and list(mean), "std": std and list(std)}
    about["recipe"] |= {name: value for name, value in given.items() if value is not None}
    return backbone.eval(), about


def _require_finite(path: Path, tensors: Tensors) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    if nonfinite := [name for name, tensor in tensors.items() if not all_finite([tensor])]:
        raise ValueError(
            f"{path} holds NaN or infinity ({describe({'in': nonfinite})}); use an earlier checkpoint of that "
            "training, or allow it: --allow-nonfinite, allow_nonfinite=True"
        )


def _own_names(given: str | Architecture | None) -> frozenset[str]:
    """Return the tensor names of a given architecture; empty if none is given."""
    if given is None:
        return frozenset()
    architecture: Architecture = {"name": given} if isinstance(given, str) else given
    with torch.device("meta"):
        return frozenset(create_backbone(**architecture).state_dict())


def _architecture(source: CheckpointFormat, tensors: Tensors, given: str | Architecture | None) -> Architecture:
    if given is None:
        architecture, faults = infer_architecture(tensors)
    else:
        architecture = {"name": given} if isinstance(given, str) else given
        faults = shape_mismatch(tensors, architecture)
    if faults:
        raise ValueError(f"does not fit {architecture['name']}: {faults}")
    if given is not None:
        return architecture
    if source.same_padding:
        architecture = _same_padded(architecture)
    if architecture.get("cifar_stem") and source.stem_padding != 1:
        return {**architecture, "stem_padding": source.stem_padding}
    if architecture["name"].startswith("timm/") and "dinov2" in architecture["name"]:
        return architecture
    if "pos_embed" in tensors and not tensors["pos_embed"][:, 0].any():  # fixed positions leave the class token's at 0
        return {**architecture, "name": MOCO_VITS.get(architecture["name"], architecture["name"])}
    if source.method in ("DINO", "DINO (student)"):
        return {**architecture, "name": DINOS.get(architecture["name"], architecture["name"])}
    return architecture


def _same_padded(architecture: Architecture) -> Architecture:
    """Return the architecture of DeepMind's networks: ResNet-50 of width 1, or ResNet-200 of width 2."""
    name: str = architecture["name"]
    widened = {"name": "widened_resnet", "depth": 50} if name == "resnet50" else architecture
    return {**widened, "same_padding": True}


def _about(path: Path, source: CheckpointFormat, architecture: Architecture, content: dict[str, Any]) -> dict[str, Any]:
    epoch = content.get("epoch")
    origin = {
        "file": path.name,
        "sha256": sha256(path),
        "layout": source.name,
        "origin": source.source,
        "licence": source.licence,
    }
    return {
        "architecture": architecture,
        "method": source.method or UNKNOWN,
        "recipe": {**_images(source, architecture), "source": origin},
        "epoch": epoch if isinstance(epoch, int) else None,
        "data": UNKNOWN,
    }


def _images(source: CheckpointFormat, architecture: Architecture) -> dict[str, Any]:
    """Return image_size, mean and std: those of the format, or timm's for timm networks of unknown method."""
    name: str = architecture["name"]
    images: dict[str, Any] = {"size": source.image_size, "mean": source.mean, "std": source.std}
    if source.method is None and name.startswith("timm/"):
        images = timm_images(name.removeprefix("timm/"))
    size = architecture.get("image_size", 32 if architecture.get("cifar_stem") else images["size"])
    channels = channels_of(architecture)
    if channels != 3:
        images |= {"mean": [0.5] * channels, "std": [0.5] * channels}
    return {"image_size": size, "mean": list(images["mean"]), "std": list(images["std"])}


class Classifier(nn.Module):
    """A backbone and a linear layer.

    Attributes:
        backbone: maps images to features.
        head: maps features to class logits.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Return the logits of normalized images."""
        return self.head(self.backbone(images))


def load_classifier(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a classifier in the format of torchvision, timm or the CIFAR ResNets; no code in the file is executed.

    Args:
        path: a file written by torch.save, or a .safetensors file.

    Returns:
        The network in evaluation mode on the CPU, and its preprocessing: `size` in pixels, `mean`, `std`.

    Raises:
        ValueError: the file does not exist, its network is unknown, or it has no linear classification layer.
    """
    path = Path(path)
    backbone, about = load_official_checkpoint(path)
    content = read_checkpoint(path)
    for state in (content, *(value for value in content.values() if isinstance(value, dict))):
        tensors = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
        head = _head(tensors, backbone.num_features)  # pyright: ignore[reportArgumentType]
        if head is not None:
            images = about["recipe"]
            preprocessing = {"size": images["image_size"], "mean": tuple(images["mean"]), "std": tuple(images["std"])}
            return Classifier(backbone, head).eval(), preprocessing
    raise ValueError(
        f"expected a classifier in {path}, got a network without a linear layer called {', '.join(HEADS)} "
        f"({describe({'found': list(map(str, content))})}); give the file of a network that was trained with labels"
    )


def _head(tensors: dict[str, Any], width: int) -> nn.Linear | None:
    """Return the linear layer that matches the feature width, or None."""
    for name in HEADS:
        weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[1] == width:
            head = nn.Linear(width, len(weight), bias=bias is not None)
            head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
            return head
    return None
