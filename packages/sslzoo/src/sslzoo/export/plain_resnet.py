"""Identify plain ResNets from any library, by names, shapes and features."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from genviews_core.backbones import Architecture, channels_of, create_backbone
from sslzoo.backbones import infer_architecture

TOLERANCE = 1e-4


def plain_resnet(backbone: nn.Module, library: str) -> Architecture:
    """Return the architecture that has the names, shapes and features of a backbone.

    Comparing features detects what names and shapes do not show: dilation, other activations, blurred pooling.

    Raises:
        ValueError: the backbone is not a plain ResNet.
    """
    kind = f"{type(backbone).__module__}.{type(backbone).__name__}"
    architecture: Architecture
    try:
        architecture, faults = infer_architecture(tensors_of(backbone))
    except ValueError:
        architecture, faults = {"name": ""}, "other names"
    if faults or architecture["name"].startswith("timm/"):
        raise ValueError(f"expected a ResNet with torchvision's names and shapes for {library}, got {kind}")
    if architecture.get("cifar_stem"):  # shapes do not show stride and padding
        stem: Any = backbone.conv1
        options = (
            {"stem_stride": stem.stride[0]} if architecture["name"] == "resnet10" else {"stem_padding": stem.padding[0]}
        )
        architecture |= {option: value for option, value in options.items() if value != 1}
    with torch.device("meta"):  # skip the initialization of weights
        twin: Any = create_backbone(**architecture)
    twin.load_state_dict(tensors_of(backbone), assign=True)
    if not same_features(backbone, twin, channels=channels_of(architecture)):
        raise ValueError(
            f"expected a plain ResNet for {library}, got {kind}, whose tensors fit {architecture['name']} but whose "
            "features differ"
        )
    return architecture


def same_features(first: nn.Module, second: nn.Module, size: int = 64, channels: int = 3) -> bool:
    """Return whether the features of two random images differ by at most 1e-4 of the largest.

    Args:
        first: network that maps images to one vector each.
        second: the other network.
        size: image size in pixels.
        channels: channels of the images.
    """
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = (_features(network, images) for network in (first, second))
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * ours.abs().max())


@torch.no_grad()
def _features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the features from a copy on the CPU in evaluation mode."""
    return copy.deepcopy(network).cpu().float().eval()(images)


def tensors_of(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached and on the CPU."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
