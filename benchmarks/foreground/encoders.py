"""Open encoders, including some that pairquality does not load by name."""

import timm
import torch

import sslzoo
from genviews_core.backbones import last_map
from genviews_core.backbones.resnets import CifarResNet
from pairquality import FeatureEncoder, load_encoder


def open_encoder(name: str, size: int, *, seed: int, device: str) -> FeatureEncoder:
    """Open an encoder of pairquality, a timm model with random weights, or a ResNet for CIFAR-10.

    Raises:
        ValueError: the name is unknown, or the weights do not fit.
    """
    if name.startswith("cifar:"):
        network, images = sslzoo.resolve_backbone(name.removeprefix("cifar:"))
        if not isinstance(network, CifarResNet):
            raise ValueError(f"expected a ResNet for CIFAR-10, got another network in {name}; give another file")
        return FeatureEncoder(network, size, images["mean"], images["std"], name, take_map=last_map).to(device)
    if name.startswith("random/"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(name.removeprefix("random/"), pretrained=False, num_classes=0)
        return FeatureEncoder(network, size, name=name, take_map=last_map).to(device)
    return load_encoder(name, size=size, device=device)
