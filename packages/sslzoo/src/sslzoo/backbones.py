"""Backbones by name: images in, one feature vector each out."""

import difflib
from typing import Any

import timm
import torchvision
from torch import nn

from sslzoo.cifar_resnet import CIFAR_RESNETS, CifarResNet
from sslzoo.dino_vit import DINO_VITS, create_dino_vit
from sslzoo.moco_vit import MOCO_VITS, create_moco_vit
from sslzoo.narrow_resnet import NarrowResNet
from sslzoo.widened_resnet import WidenedResNet

TIMM = "timm/"
WIDENED = "widened_resnet"


def create_backbone(name: str, *, cifar_stem: bool = False, image_size: int | None = None, **options: Any) -> nn.Module:
    """A network without classifier, Float[B,3,H,W] -> Float[B,D], with `.num_features` = D.

    Weights are random; their names are those of torchvision or timm, so that others can load them.

    Args:
        name: a ResNet of torchvision ("resnet18", "resnet50", "resnext50_32x4d", ...), "resnet10" (NarrowResNet),
            "resnet20" to "resnet110" (CifarResNet), "widened_resnet" (WidenedResNet), "moco_vit_small" or
            "moco_vit_base" (MoCo v3's), "dino_vit_tiny", "dino_vit_small" or "dino_vit_base" (DINO's, for images of any
            size), or "timm/<any name>".
        cifar_stem: for the ResNets: a 3x3 stride-1 first convolution and no max pooling, for images of 32 to 64 px.
        image_size: pixels; for timm's networks of fixed input size (vision transformers). The others take any.
        options: passed on: torchvision's (`zero_init_residual=True`), NarrowResNet's (`width=32`), create_moco_vit's
            (`freeze_patch_embed=False`), or timm's (`drop_path_rate=0.1`, also for DINO's; `dynamic_img_size=True`).

    Raises:
        ValueError: unknown name, with near ones; a CIFAR stem for a network of timm.
    """
    if cifar_stem and (name.startswith(TIMM) or name in (*MOCO_VITS, *DINO_VITS, *CIFAR_RESNETS, WIDENED)):
        raise ValueError(f"cifar_stem is for ResNets of torchvision and resnet10; {name} has its own stem.")
    if name.startswith(TIMM):
        return _from_timm(name.removeprefix(TIMM), image_size, options)
    if name in MOCO_VITS:
        return create_moco_vit(name, image_size=image_size, **options)
    if name in DINO_VITS:
        return create_dino_vit(name, image_size=image_size, **options)
    if name in CIFAR_RESNETS:
        return CifarResNet(CIFAR_RESNETS[name], **options)
    if name == WIDENED:
        return WidenedResNet(**options)
    if name == "resnet10":
        return NarrowResNet(cifar_stem=cifar_stem, **options)
    if name not in _torchvision_resnets():
        others = [TIMM + other for other in timm.list_models()]
        raise _unknown(
            name, ["resnet10", *CIFAR_RESNETS, WIDENED, *MOCO_VITS, *DINO_VITS, *_torchvision_resnets(), *others]
        )
    return _torchvision_resnet(name, cifar_stem, options)


def _torchvision_resnets() -> list[str]:
    models = torchvision.models
    names = models.list_models(module=models)
    return [name for name in names if models.get_model_builder(name).__module__ == models.resnet.__name__]


def _torchvision_resnet(name: str, cifar_stem: bool, options: dict[str, Any]) -> nn.Module:
    network = torchvision.models.get_model(name, **options)
    assert isinstance(network, torchvision.models.ResNet)
    network.num_features = network.fc.in_features  # pyright: ignore
    network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    if cifar_stem:
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network


def _from_timm(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        raise _unknown(TIMM + name, [TIMM + other for other in timm.list_models()])
    config = timm.get_pretrained_cfg(name)
    if image_size is not None and config is not None and config.fixed_input_size:
        options = {"img_size": image_size, **options}
    network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    network.num_features = getattr(network, "head_hidden_size", network.num_features)
    return network


def _unknown(name: str, known: list[str]) -> ValueError:
    near = difflib.get_close_matches(name, known, n=3)
    own = ", ".join(["resnet10", *CIFAR_RESNETS, WIDENED, *MOCO_VITS, *DINO_VITS])
    kinds = f"choose a torchvision ResNet, {own}, or timm/<name>"
    hint = f"near ones: {', '.join(near)}" if near else kinds
    return ValueError(f"Unknown backbone {name!r}; {hint}.")
