"""Read backbone folders: `backbone.safetensors` and `backbone.json`. All libraries use this module.

Nothing in a folder can cause a download or open another file, and memory is allocated only after the names and shapes
of the tensors have been checked against the network.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from genviews_core.backbones.create import create_backbone
from genviews_core.backbones.fields import Architecture, channels_of, check_architecture, check_images
from genviews_core.backbones.names import CIFAR_RESNETS, TIMM
from genviews_core.backbones.pretrained import first_line, timm_images

FORMAT = 1
TENSORS = "backbone.safetensors"
DESCRIPTION = "backbone.json"
DESCRIPTION_BYTES = 2**24
IMAGENET = {"size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True, kw_only=True)
class BackboneFile:
    """The validated content of backbone.json.

    Attributes:
        folder: the backbone folder.
        architecture: arguments of `create_backbone`.
        hash: hash of the tensors, as computed by `backbone_hash`.
        images: `size`, `mean` and `std` of the images, those that the recipe has, and `value_range` for images of other
            than three channels.
        method: the method that trained the backbone; "" if unknown.
    """

    folder: Path
    architecture: Architecture
    hash: str
    images: dict[str, Any]
    method: str


def is_backbone_folder(path: str | Path) -> bool:
    """Return whether the folder has a backbone.json."""
    return (Path(path) / DESCRIPTION).is_file()


def read_description(folder: str | Path) -> BackboneFile:
    """Read and check backbone.json.

    Raises:
        ValueError: it is missing or broken, or has a value that is not allowed.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise _missing_file(folder, DESCRIPTION)
    try:
        if path.stat().st_size > DESCRIPTION_BYTES:
            raise ValueError(f"expected at most {DESCRIPTION_BYTES} bytes, got {path.stat().st_size}")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not isinstance(content.get("hash"), str):
            raise ValueError("expected an object with architecture and hash")
        if content.get("format", FORMAT) != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {repr(content['format'])[:80]}")
        architecture = check_architecture(content.get("architecture"))
        return BackboneFile(
            folder=Path(folder),
            architecture=architecture,
            hash=content["hash"],
            images=check_images(content.get("recipe", {}), channels_of(architecture)),
            method=method if isinstance(method := content.get("method"), str) else "",
        )
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is broken ({first_line(error)}); save the backbone again") from error


def _missing_file(folder: str | Path, name: str) -> ValueError:
    return ValueError(f"expected {name} in the backbone folder {folder}, got no file; sslzoo.save_backbone writes it")


def load_backbone(folder: str | Path) -> nn.Module:
    """Build the network that a folder describes and load its weights; it is in evaluation mode, on the CPU.

    Methods of sslzoo switch it to training mode; call `.train()` in your own training loop.

    Raises:
        ValueError: a file is missing or broken, tensor names do not match, or the two files do not belong together.
    """
    return build_described(read_description(folder))


def build_described(about: BackboneFile) -> nn.Module:
    """Build the network of a description and load the tensors in its folder; it is in evaluation mode.

    Raises:
        ValueError: see `load_backbone`.
    """
    path = about.folder / TENSORS
    if not path.is_file():
        raise _missing_file(about.folder, TENSORS)
    try:
        with safetensors.safe_open(path, "pt") as file:
            shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _compare(about, shapes)
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds a broken backbone ({first_line(error)}); save it again") from error
    backbone = _build_network(about)
    backbone.load_state_dict(tensors)
    if backbone_hash(backbone) != about.hash:
        raise ValueError(f"{path} is not the one that {DESCRIPTION} describes; save both again")
    return backbone.eval()


def _compare(about: BackboneFile, shapes: dict[str, torch.Size]) -> None:
    with torch.device("meta"):  # names and shapes without allocating memory
        own = {name: tensor.shape for name, tensor in _build_network(about).state_dict().items()}
    faults = {
        "missing": sorted(own.keys() - shapes.keys()),
        "unknown": sorted(shapes.keys() - own.keys()),
        "wrong shape": sorted(name for name in own.keys() & shapes.keys() if own[name] != shapes[name]),
    }
    if any(faults.values()):
        raise ValueError(f"{about.folder / TENSORS} does not fit the network in {DESCRIPTION}; {describe(faults)}")


def _build_network(about: BackboneFile) -> nn.Module:
    try:
        return create_backbone(**about.architecture)
    except Exception as error:  # allowed options may still be incompatible; libraries raise different types
        name = about.architecture["name"]
        raise ValueError(f"{about.folder / DESCRIPTION}: {name} cannot be built ({first_line(error)})") from error


def describe(faults: dict[str, list[str]], shown: int = 3) -> str:
    """Format names by kind of fault, as in `missing: a, b, c and 7 more; unknown: d`."""
    lines = []
    for kind, names in faults.items():
        more = f" and {len(names) - shown} more" if len(names) > shown else ""
        lines += [f"{kind}: {', '.join(names[:shown])}{more}"] if names else []
    return "; ".join(lines)


def backbone_hash(backbone: nn.Module) -> str:
    """Return the blake2b hash of names, dtypes, shapes and values of all tensors; it does not depend on the machine."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def backbone_input(folder: str | Path) -> dict[str, Any]:
    """Return `size` in pixels, `mean` and `std` per channel of the images of a backbone; see `images_of`.

    Raises:
        ValueError: backbone.json is missing or broken.
    """
    return images_of(read_description(folder))


def images_of(about: BackboneFile) -> dict[str, Any]:
    """Return `size`, `mean` and `std`; missing values are timm's for a timm network, otherwise ImageNet's.

    Missing values of other than three channels are 0.5. `value_range` is returned if the recipe has it.

    Warns:
        UserWarning: the recipe lacks one of them.
    """
    architecture, name = about.architecture, about.architecture["name"]
    default = timm_images(name.removeprefix(TIMM)) if name.startswith(TIMM) else dict(IMAGENET)
    if (channels := channels_of(architecture)) != 3:
        default |= {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    small = name in CIFAR_RESNETS or architecture.get("cifar_stem")
    default["size"] = architecture.get("image_size", architecture.get("img_size", 32 if small else default["size"]))
    if absent := [key for key in default if key not in about.images]:
        values = ", ".join(f"{'image_size' if key == 'size' else key} {default[key]}" for key in absent)
        warnings.warn(f"{about.folder / DESCRIPTION} lacks image settings; using {values}", stacklevel=3)
    return default | about.images
