"""timm's form: the state_dict of a network of timm with num_classes=0."""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslzoo.export.plain_resnet import plain_resnet
from sslzoo.export.resnet_lines import timm_lines
from sslzoo.export.same_features import tensors_of
from sslzoo.export.write import write_tensors


def to_timm(backbone: nn.Module, path: str | Path | None = None) -> dict[str, Tensor]:
    """The backbone's tensors, as a network of timm takes them (`timm_network` tells which).

    torchvision's ResNets map to timm's of the same names, with or without the CIFAR stem; resnet10 and widened ResNets
    are built from timm's blocks; timm networks are unchanged.

    Args:
        backbone: any that create_backbone makes.
        path: write them here too, for torch.load (.pth) or safetensors (.safetensors).

    Raises:
        ValueError: timm has no such network.
    """
    if not _is_timms(backbone):
        timm_lines(plain_resnet(backbone, "timm"))
    return write_tensors(tensors_of(backbone), path)


def timm_network(backbone: nn.Module) -> str:
    """Lines of Python that make `network`, which takes what to_timm gives.

    Raises:
        ValueError: timm has no such network, or it was made with options that it does not tell.
    """
    return _timms(backbone) if _is_timms(backbone) else timm_lines(plain_resnet(backbone, "timm"))


def _is_timms(backbone: nn.Module) -> bool:
    return isinstance(backbone, VisionTransformer) or type(backbone).__module__.startswith("timm.")


def _timms(backbone: nn.Module) -> str:
    name: str = backbone.pretrained_cfg["architecture"]  # pyright: ignore
    options = _transformer_options(backbone) if isinstance(backbone, VisionTransformer) else {}
    with torch.device("meta"):
        twin = timm.create_model(name, num_classes=0, **options)
    ours, theirs = ({name: t.shape for name, t in network.state_dict().items()} for network in (backbone, twin))
    if ours != theirs:
        raise ValueError(f"{name} was made with options that it does not tell; backbone.json has them.")
    told = "".join(f", {option}={value}" for option, value in options.items())
    return f'network = timm.create_model("{name}", num_classes=0{told})'


def _transformer_options(backbone: VisionTransformer) -> dict[str, Any]:
    return {
        "img_size": backbone.patch_embed.img_size[0],  # pyright: ignore[reportOptionalSubscript]
        "patch_size": backbone.patch_embed.patch_size[0],
        "embed_dim": backbone.embed_dim,
        "depth": len(backbone.blocks),
        "num_heads": backbone.blocks[0].attn.num_heads,  # pyright: ignore
    }
