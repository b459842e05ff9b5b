"""The networks of FID and LPIPS, loaded from files of weights, and wrappers of other networks for FID.

Shapes: B images of a batch, H and W pixels, D features.
"""

from __future__ import annotations

import importlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
"""FID's network of 2015-12-05, converted from TensorFlow; toshas/torch-fidelity has the same file."""
BACKBONES = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "squeeze": "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's weights of LPIPS' backbones; its linear layers come with torchmetrics."""
MARKS = {"squeeze": "features.3.squeeze.weight", "vgg": "features.28.weight", "alex": "features.10.weight"}
"""A layer by which a file of weights is recognized; the first match counts."""


class ImageFeatures(nn.Module):
    """Any network of normalized float images, wrapped to take uint8 images.

    Args:
        module: images [B, 3, size, size] to features [B, D].
        name: name in the results.
        size: input size in pixels; images are resized to it (bicubic, antialiased). None keeps their size.
        mean: subtracted per channel, for values in [0, 1].
        std: divided by per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        size: int | None = None,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.module, self.name, self.size = module, name, size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return the module's features."""
        values = images.float() / 255
        if self.size is not None and values.shape[-2:] != (self.size, self.size):
            values = interpolate(values, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return self.module((values - self.mean) / self.std)


class _Inception(nn.Module):
    name = "Inception v3 of 2015-12-05, 2048 features"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        return self.network(images)[0]


class _Perceptual(nn.Module):
    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, images: UInt8[Tensor, "B 3 H W"], views: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
        return self.network(images.float() / 255, views.float() / 255, normalize=True).flatten()


def load_inception(path: str | Path) -> nn.Module:
    """Load FID's Inception v3 with TensorFlow's resizing: uint8 images [B, 3, H, W] to 2048 features.

    Args:
        path: pt_inception-2015-12-05-6726825d.pth, read with weights_only=True.

    Raises:
        ValueError: the file is missing, contains more than tensors, or another network; torch-fidelity is missing.
    """
    state = _tensors(path, f"download it from {INCEPTION}")
    network: Any = required("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    file = io.BytesIO()  # its constructor reads a file, of any pickled object
    torch.save(state, file)
    file.seek(0)
    try:
        return _Inception(network("inception-v3-compat", ["2048"], file)).eval()
    except RuntimeError as error:
        raise ValueError(f"expected FID's Inception v3, got another network in {path}; use {INCEPTION}") from error


def load_lpips(path: str | Path) -> nn.Module:
    """Load LPIPS 0.1 with the AlexNet, VGG-16 or SqueezeNet 1.1 in the file: pairs of uint8 images to distances.

    Args:
        path: torchvision's weights, read with weights_only=True.

    Raises:
        ValueError: the file is missing, contains more than tensors, or is of none of these; torchmetrics is missing.
    """
    state = _tensors(path, f"download torchvision's AlexNet, {BACKBONES['alex']}")
    build: Any = required("torchmetrics.functional.image.lpips")._NoTrainLpips
    kind = next((kind for kind, mark in MARKS.items() if mark in state), "alex")
    network = build(net=kind, pnet_rand=True)
    wanted = {name: re.sub(r"^slices?\.?\d+\.", "features.", name) for name in network.net.state_dict()}
    try:
        network.net.load_state_dict({name: state[old] for name, old in wanted.items()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"expected one of torchvision's networks for LPIPS, got another in {path}; use {BACKBONES['alex']}"
        ) from error
    return _Perceptual(network, f"LPIPS 0.1 {kind}").eval()


def _tensors(path: str | Path, hint: str) -> dict[str, Tensor]:
    """Read the named tensors of a file of weights."""
    if not Path(path).is_file():
        raise ValueError(f"expected weights at {path}, got no file; {hint}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"expected a file of weights, got {path}, damaged or with other content; {hint}") from error
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"expected only named tensors in {path}, got other values; {hint}")
    return state


def required(name: str) -> Any:
    """Import a module of the extra `images`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise ValueError(
            f"expected {missing} for image metrics, which is not installed; "
            "pip install pillow scipy torch-fidelity torchmetrics torchvision"
        ) from error
