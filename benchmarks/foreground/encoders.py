"""Encoders that pairquality does not load by name."""

import timm
import torch
from torch import Tensor, nn

import sslzoo
from pairquality import FeatureEncoder, load_encoder
from pairquality.timm_models import timm_features
from sslzoo.cifar_resnet import CifarResNet


def open_encoder(name: str, size: int, *, seed: int, device: str) -> FeatureEncoder:
    """By pairquality, with random weights of timm's, or a ResNet of CIFAR-10.

    Raises:
        ValueError: unknown name, or weights that do not fit.
    """
    if name.startswith("cifar:"):
        network, images = sslzoo.open_backbone(name.removeprefix("cifar:"))
        if not isinstance(network, CifarResNet):
            raise ValueError(f"{name} holds another network than a ResNet of CIFAR-10")
        return FeatureEncoder(network, size, images["mean"], images["std"], name, take_map=_last_map).to(device)
    if name.startswith("random/"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(name.removeprefix("random/"), pretrained=False, num_classes=0)
        return FeatureEncoder(network, size, name=name, take_map=timm_features).to(device)
    return load_encoder(name, size=size, device=device)


def _last_map(network: nn.Module, images: Tensor) -> Tensor:
    assert isinstance(network, CifarResNet)
    return network.maps(images)
