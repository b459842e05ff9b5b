"""Encoders that pairquality does not load by name."""

import timm
import torch

from pairquality import FeatureEncoder, load_encoder
from pairquality.timm_models import timm_features
from resnet20 import CIFAR_MEAN, CIFAR_STD, load_resnet20


def open_encoder(name: str, size: int, *, seed: int, device: str) -> FeatureEncoder:
    """By pairquality, with random weights of timm's, or the small ResNet-20 of CIFAR-10.

    Raises:
        ValueError: unknown name, or weights that do not fit.
    """
    if name.startswith("resnet20:"):
        network = load_resnet20(name.removeprefix("resnet20:"))
        return FeatureEncoder(network, size, CIFAR_MEAN, CIFAR_STD, name).to(device)
    if name.startswith("random/"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = timm.create_model(name.removeprefix("random/"), pretrained=False, num_classes=0)
        return FeatureEncoder(network, size, name=name, take_map=timm_features).to(device)
    return load_encoder(name, size=size, device=device)
