"""Identification of plain ResNets from any library."""

from typing import Any

import torch
from torch import nn

from genviews_core.backbones import Architecture, create_backbone
from sslzoo.architectures import find_architecture
from sslzoo.export.same_features import same_features, tensors_of


def plain_resnet(backbone: nn.Module, library: str) -> Architecture:
    """Return the architecture that has the names, shapes and features of a backbone.

    Comparing features detects what names and shapes do not show: dilation, other activations, blurred pooling.

    Raises:
        ValueError: the backbone is not a plain ResNet.
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
        options = (
            {"stem_stride": stem.stride[0]} if architecture["name"] == "resnet10" else {"stem_padding": stem.padding[0]}
        )
        architecture |= {option: value for option, value in options.items() if value != 1}
    with torch.device("meta"):  # skip the initialization of weights
        twin: Any = create_backbone(**architecture)
    twin.load_state_dict(tensors_of(backbone), assign=True)
    if not same_features(backbone, twin):
        raise ValueError(
            f"{kind} has no form in {library}: its tensors fit {architecture['name']}, its features do not."
        )
    return architecture
