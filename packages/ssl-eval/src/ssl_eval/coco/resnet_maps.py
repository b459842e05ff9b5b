"""The feature maps of the four stages of a ResNet with torchvision's names."""

import copy

import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from ssl_eval.features import evaluating

STAGES = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32)


def stage_maps(backbone: nn.Module) -> tuple[nn.Module, list[int]]:
    """A copy of the backbone that gives the maps "0" to "3", all of it trainable, and their channels.

    Raises:
        ValueError: it has no such stages, its own forward pass computes them otherwise, or their strides are not 4, 8,
            16 and 32, as those of CIFAR's stems.
    """
    if not all(isinstance(getattr(backbone, name, None), nn.Module) for name in STAGES):
        raise ValueError(
            f"Mask R-CNN takes a ResNet with the stages layer1 to layer4; {type(backbone).__name__} is none"
        )
    body = copy.deepcopy(backbone).requires_grad_(True).cpu().float()
    kept: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(body, name).register_forward_hook(lambda _, __, maps, name=name: kept.update({name: maps}))
        for name in STAGES
    ]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    getter = IntermediateLayerGetter(body, {name: str(number) for number, name in enumerate(STAGES)})
    with torch.no_grad(), evaluating(body):
        body(images)
        expected = dict(kept)
        found = list(getter(images).values())
    for hook in hooks:
        hook.remove()
    same = [torch.allclose(expected[name], maps, rtol=1e-4) for name, maps in zip(STAGES, found, strict=True)]
    if not all(same):
        raise ValueError(f"{type(backbone).__name__} does more than pass its layers in order: it has no plain stages")
    strides = tuple(64 // maps.shape[-1] for maps in found)
    if strides != STRIDES:
        raise ValueError(f"its maps have strides {strides}: Mask R-CNN needs {STRIDES}, a stem without cifar_stem")
    return getter, [maps.shape[1] for maps in found]
