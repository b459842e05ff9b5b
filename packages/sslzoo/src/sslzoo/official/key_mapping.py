"""Map the tensor names of other implementations to those of torchvision and timm."""

import re

import torch
from torch import Tensor

from genviews_core.backbones import create_backbone

Tensors = dict[str, Tensor]
CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
"""Modules of torchvision's ResNet in their order, which nn.Sequential(*children) numbers."""
SIMCLR_V2 = (
    (r"^0\.0\.", "conv1."),
    (r"^0\.1\.0\.", "bn1."),
    (r"^([1-4])\.blocks\.(\d+)\.", r"layer\1.\2."),
    (r"\.projection\.shortcut\.", ".downsample.0."),
    (r"\.projection\.bn\.0\.", ".downsample.1."),
    (r"\.net\.0\.", ".conv1."),
    (r"\.net\.1\.0\.", ".bn1."),
    (r"\.net\.2\.", ".conv2."),
    (r"\.net\.3\.0\.", ".bn2."),
    (r"\.net\.4\.", ".conv3."),
    (r"\.net\.5\.0\.", ".bn3."),
)
"""Separius/SimCLRv2-Pytorch@f4c2f41 resnet.py: Stem, Blocks, BottleneckBlock, Projection."""


def from_sequential(tensors: Tensors) -> Tensors:
    """Rename `4.0.conv1.weight` to `layer1.0.conv1.weight`: yaox12/BYOL-PyTorch@edefc01 model/basic_modules.py."""
    renamed = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        known = number.isdigit() and int(number) < len(CHILDREN)
        renamed[f"{CHILDREN[int(number)]}.{rest}" if known else name] = tensor
    return renamed


def from_lightly(tensors: Tensors) -> Tensors:
    """Rename a ResNet in an nn.Sequential, or a timm ViT in lightly's MaskedVisionTransformerTIMM.

    lightly-ai/lightly@e8d317f examples/pytorch_lightning, lightly/models/modules/masked_vision_transformer_timm.py.
    """
    tensors = {name.removeprefix("vit."): tensor for name, tensor in tensors.items() if name != "mask_token"}
    return from_sequential(tensors)


def from_dinov2(tensors: Tensors) -> Tensors:
    """Rename DINOv2's tensors (facebookresearch/dinov2@b8931f7 vision_transformer.py, chunked blocks or not) to timm's.

    With registers, which have no positions in timm, the position of the class token is added to the class token.
    """
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name)
        renamed[name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")] = tensor
    renamed.pop("mask_token", None)
    if (registers := renamed.pop("register_tokens", None)) is not None:
        of_class, of_patches = renamed["pos_embed"].split([1, renamed["pos_embed"].shape[1] - 1], dim=1)
        renamed |= {"reg_token": registers, "cls_token": renamed["cls_token"] + of_class, "pos_embed": of_patches}
    return renamed


def from_simclr_v2(tensors: Tensors) -> Tensors:
    """Rename the tensors of a SimCLR v2 network.

    Raises:
        ValueError: the network has selective kernels.
    """
    if any(".mixing_conv." in name for name in tensors):
        raise ValueError("has selective kernels (sk1), which no network here has; use an sk0 file")
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in SIMCLR_V2:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def name_by_order(tensors: Tensors) -> Tensors:
    """Name the tensors of a ResNet-50 by their order, which is torchvision's.

    As yaox12/BYOL-PyTorch@edefc01 utils/load_and_convert.py reads the authors' released file; it ignores tensors after
    those of the network too.
    """
    with torch.device("meta"):
        names = create_backbone(name="resnet50").state_dict()
    return dict(zip(names, tensors.values(), strict=False))


def require_counters(tensors: Tensors) -> Tensors:
    """Return the tensors unchanged.

    Raises:
        ValueError: the batch norms have no counters. DeepMind's converted BYOL networks have none, and no name shows
            that their padding differs; networks of old torchvision have none either, with the usual padding.
    """
    normed = any(name.endswith("running_mean") for name in tensors)
    if normed and not any(name.endswith("num_batches_tracked") for name in tensors):
        raise ValueError(
            "has no num_batches_tracked; for DeepMind's BYOL from byol-convert, give --format byol-convert"
        )
    return tensors


def add_counters(tensors: Tensors) -> Tensors:
    """Add the batch counters of batch norms, which are used only in training without momentum."""
    means = [name for name in tensors if name.endswith("running_mean")]
    return {**tensors, **{name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}}
