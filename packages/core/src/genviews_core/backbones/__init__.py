"""Create backbones by name, and load trained ones from backbone folders.

network = create_backbone("resnet50")                       # random weights
network, images = load_backbone(folder), backbone_input(folder)
"""

from genviews_core.backbones.create import adapt_first_layer, create_backbone, last_map
from genviews_core.backbones.fields import Architecture, channels_of, check_architecture, check_images, described
from genviews_core.backbones.folder import (
    DESCRIPTION,
    FORMAT,
    TENSORS,
    BackboneFile,
    backbone_hash,
    backbone_input,
    build_described,
    describe,
    images_of,
    is_backbone_folder,
    load_backbone,
    read_description,
)
from genviews_core.backbones.pretrained import first_line, from_hub, load_timm, timm_images

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "TENSORS",
    "Architecture",
    "BackboneFile",
    "adapt_first_layer",
    "backbone_hash",
    "backbone_input",
    "build_described",
    "channels_of",
    "check_architecture",
    "check_images",
    "create_backbone",
    "describe",
    "described",
    "first_line",
    "from_hub",
    "images_of",
    "is_backbone_folder",
    "last_map",
    "load_backbone",
    "load_timm",
    "read_description",
    "timm_images",
]
