"""The features that IC-GAN is conditioned on: those of a SwAV ResNet-50 (https://arxiv.org/abs/2006.09882).

Shapes: B images of H x W pixels; features have length 2048.
"""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from viewgen.encoder import IMAGENET_MEAN, IMAGENET_STD
from viewgen.icgan.checkpoint import compare, read_tensors

NETWORK_SIDE = 224  # pixels
# Heads that follow the pooled features: SwAV's two (facebookresearch/swav) and a classifier's.
HEADS = ("projection_head.", "prototypes.", "fc.")
COUNTER = ".num_batches_tracked"  # of batch normalization in training; some files lack it


class FeatureExtractor:
    """SwAV features of unit length, computed as in the official demo (facebookresearch/ic_gan, predict.py).

    Args:
        path: ``swav_800ep_pretrain.pth.tar``, any ResNet-50 under torchvision's names, or a folder with one
            ``.safetensors`` of it.
        size: resolution of the generator's training images, in pixels; each image is first resized to it.
        align_corners: option of the upsampling to 224 px: True as in the demo, False as in the training's make_hdf5.py.
        device: device to run on, in float32.

    Raises:
        ValueError: if the weights are missing, refused, or no ResNet-50.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: int,
        align_corners: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        self.size, self.align_corners, self.device = size, align_corners, torch.device(device)
        self.network = load_resnet50(find_features(path)).to(self.device).to(memory_format=torch.channels_last)

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 S S"]:
        """Return the central square, resized by Pillow."""
        return central_square(image, self.size)

    @torch.no_grad()
    def encode(self, prepared: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 2048"]:
        """Compute the features of prepared images, on the CPU."""
        return normalize(self.network(enlarge(prepared.to(self.device), align_corners=self.align_corners))).cpu()

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 2048"]:
        """Compute the images' features, on the CPU."""
        return self.encode(torch.stack([self.prepare(image) for image in images]))


def central_square(image: UInt8[Tensor, "3 H W"], size: int) -> UInt8[Tensor, "3 S S"]:
    """Apply the first half of the official preprocessing: the largest central square, resized by Pillow (bilinear)."""
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = round((height - short) / 2), round((width - short) / 2)
    square = Image.fromarray(image[:, top : top + short, left : left + short].permute(1, 2, 0).contiguous().numpy())
    return torch.from_numpy(np.array(square.resize((size, size), Image.Resampling.BILINEAR))).permute(2, 0, 1)


def enlarge(small: UInt8[Tensor, "B 3 S S"], *, align_corners: bool = True) -> Float[Tensor, "B 3 224 224"]:
    """Apply the second half: ImageNet normalization, then bicubic to 224 px without antialiasing or clamping."""
    mean, std = (torch.tensor(triple, device=small.device).view(3, 1, 1) for triple in (IMAGENET_MEAN, IMAGENET_STD))
    values = (small.float() / 255 - mean) / std
    return interpolate(values, (NETWORK_SIDE, NETWORK_SIDE), mode="bicubic", align_corners=align_corners)


def find_features(path: str | os.PathLike[str]) -> Path:
    """Return the weights file: ``path`` itself, or the only ``.safetensors`` of a folder.

    Raises:
        ValueError: if the folder has none or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise ValueError(
            f"expected one .safetensors file in {path}, got {len(found)}; give the file with the ResNet-50's weights"
        )
    return found[0]


def load_resnet50(path: str | os.PathLike[str]) -> nn.Module:
    """Load a frozen ResNet-50 up to the pooled features, from SwAV's file or any with torchvision's parameter names.

    Raises:
        ValueError: if the weights are missing, refused, or no ResNet-50.
    """
    import timm  # slow to import, and not needed with cached features

    tensors = {name.removeprefix("module."): tensor.float() for name, tensor in read_tensors(path).items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(HEADS)}
    network = timm.create_model("resnet50", pretrained=False, num_classes=0)
    expected = {name: tuple(own.shape) for name, own in network.state_dict().items() if not name.endswith(COUNTER)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    compare(expected, weights, Path(path))
    network.load_state_dict(weights, strict=False)
    return network.eval().requires_grad_(False)
