"""Which plain ResNet a backbone is, of whatever library."""

from typing import Any

import torch
from torch import nn

from genviews_core.backbones import Architecture, create_backbone
from sslzoo.architectures import find_architecture
from sslzoo.export.same_features import same_features, tensors_of

CIFAR_STEM = "network.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False); network.maxpool = torch.nn.Identity()"
"""The line of Python that makes create_backbone's `cifar_stem` in a ResNet of torchvision or timm."""


def plain_resnet(backbone: nn.Module, library: str) -> Architecture:
    """The architecture with these names and shapes, after comparing its features with the backbone's.

    The comparison finds what names and shapes do not show: dilation, other activations, blurred pooling.

    Raises:
        ValueError: it is no plain ResNet, so the library has no form for it.
    """
    kind = f"{type(backbone).__module__}.{type(backbone).__name__}"
    architecture: Architecture
    try:
        architecture, faults = find_architecture(tensors_of(backbone))
    except ValueError:
        architecture, faults = {"name": ""}, "other names"
    if faults or architecture["name"].startswith("timm/"):
        raise ValueError(f"{kind} has no form in {library}: it is no ResNet with torchvision's names and shapes.")
    with torch.device("meta"):  # its own initial weights are not wanted
        twin: Any = create_backbone(**architecture)
    twin.load_state_dict(tensors_of(backbone), assign=True)
    if not same_features(backbone, twin):
        raise ValueError(
            f"{kind} has no form in {library}: its tensors fit {architecture['name']}, its features do not."
        )
    return architecture
