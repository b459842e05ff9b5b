"""The networks behind FID and LPIPS, from files of weights, and any other network in FID's place.

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
"""torchvision's weights that LPIPS stands on; its own linear layers come with torchmetrics."""
MARKS = {"squeeze": "features.3.squeeze.weight", "vgg": "features.28.weight", "alex": "features.10.weight"}
"""A layer that tells each from those after it."""


class ImageFeatures(nn.Module):
    """Any network of normalized float images, for uint8 ones.

    Args:
        module: images [B, 3, size, size] to features [B, D].
        name: told with every result.
        size: side of its images in pixels; others are resized (bicubic, antialiased). None leaves them as they are.
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
        """The module's features."""
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
    """FID's Inception v3 with TensorFlow's own resizing, uint8 images [B, 3, H, W] to 2048 features.

    Args:
        path: pt_inception-2015-12-05-6726825d.pth, read with weights_only=True.

    Raises:
        ValueError: the file is missing, holds more than tensors, or is of another network; torch-fidelity is missing.
    """
    state = _tensors(path, f"download it from {INCEPTION}")
    network: Any = required("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    file = io.BytesIO()  # its constructor reads a file, of any pickled object
    torch.save(state, file)
    file.seek(0)
    try:
        return _Inception(network("inception-v3-compat", ["2048"], file)).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} holds another network than FID's Inception v3: take {INCEPTION}") from error


def load_lpips(path: str | Path) -> nn.Module:
    """LPIPS 0.1 by AlexNet, VGG-16 or SqueezeNet 1.1, whichever the file holds: pairs of uint8 images to distances.

    Args:
        path: torchvision's weights, read with weights_only=True.

    Raises:
        ValueError: the file is missing, holds more than tensors, or is of none of these; torchmetrics is missing.
    """
    state = _tensors(path, f"download torchvision's AlexNet, {BACKBONES['alex']}")
    build: Any = required("torchmetrics.functional.image.lpips")._NoTrainLpips
    kind = next((kind for kind, mark in MARKS.items() if mark in state), "alex")
    network = build(net=kind, pnet_rand=True)
    wanted = {name: re.sub(r"^slices?\.?\d+\.", "features.", name) for name in network.net.state_dict()}
    try:
        network.net.load_state_dict({name: state[old] for name, old in wanted.items()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} holds none of torchvision's networks for LPIPS: take {BACKBONES['alex']}") from error
    return _Perceptual(network, f"LPIPS 0.1 {kind}").eval()


def _tensors(path: str | Path, hint: str) -> dict[str, Tensor]:
    """What a file of weights holds, by name."""
    if not Path(path).is_file():
        raise ValueError(f"no weights at {path}: {hint}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is broken, or holds more than weights: {hint}") from error
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"{path} holds more than weights by name: {hint}")
    return state


def required(name: str) -> Any:
    """A module of the extra `images`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise ValueError(
            f"image metrics need {missing}: pip install pillow scipy torch-fidelity torchmetrics torchvision"
        ) from error
