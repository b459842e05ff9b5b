"""Which plain ResNet a backbone is, of whatever library."""

from typing import Any

import torch
from torch import nn

from genviews_core.backbones import Architecture, create_backbone
from sslzoo.architectures import find_architecture
from sslzoo.export.same_features import same_features, tensors_of


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
    if architecture.get("cifar_stem"):  # shapes do not show stride and padding
        stem: Any = backbone.conv1
        told = (
            {"stem_stride": stem.stride[0]} if architecture["name"] == "resnet10" else {"stem_padding": stem.padding[0]}
        )
        architecture |= {option: value for option, value in told.items() if value != 1}
    with torch.device("meta"):  # its own initial weights are not wanted
        twin: Any = create_backbone(**architecture)
    twin.load_state_dict(tensors_of(backbone), assign=True)
    if not same_features(backbone, twin):
        raise ValueError(
            f"{kind} has no form in {library}: its tensors fit {architecture['name']}, its features do not."
        )
    return architecture
