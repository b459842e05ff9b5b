"""A frozen network that turns images into tokens.

Shapes: b images of h x w pixels, l tokens of an image in a square grid, d token width.
"""

import copy
from collections.abc import Callable
from functools import cached_property
from hashlib import blake2b
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genviews_core.backbones import backbone_hash

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]
TakeMap = Callable[[nn.Module, Tensor], Any]
"""Function of (network, normalized images); returns a map Float[b d rows columns], or tokens Float[b l d]."""


class FeatureEncoder(nn.Module):
    """Encode images to tokens with a frozen copy of a network.

    The network is not registered as a submodule. It therefore stays in evaluation mode when the surrounding model is
    trained, and optimizers, EMA, DDP and state_dict() of that model do not see it; .to(device) still moves it.

    Args:
        module: the network; it is copied.
        size: image size in pixels; images of other sizes are resized.
        mean: mean per channel of images in [0, 1].
        std: standard deviation per channel of images in [0, 1].
        name: name by which load_encoder finds the encoder again, or any text.
        take_map: function that returns the features of the network; by default its output is used.
        autocast: data type in which the network computes, such as torch.bfloat16; None for float32, even if the caller
            uses autocast.

    Attributes:
        normalization: (mean, std).
        hash: hash of weights and normalization; a PCA fitted on one encoder is rejected for another.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        size: int,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        name: str = "encoder",
        *,
        take_map: TakeMap | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._held = (copy.deepcopy(module).eval().requires_grad_(False),)  # a tuple is not registered
        self._take_map: TakeMap = take_map or _call
        self.size, self.name, self.autocast = size, name, autocast
        mean, std = ((float(r), float(g), float(b)) for r, g, b in (mean, std))
        self.normalization = (mean, std)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.hash = blake2b(f"{backbone_hash(module)} {mean} {std}".encode(), digest_size=16).hexdigest()
        super().train(False)

    @property
    def network(self) -> nn.Module:
        """Return the frozen network."""
        return self._held[0]

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Return the numbers of rows and columns of tokens, determined by encoding one black image."""
        return self._encode(self.mean.new_zeros(1, 3, self.size, self.size))[1]

    def grid_at(self, size: int) -> tuple[int, int]:
        """Return the numbers of rows and columns of tokens for images of another size than the encoder's."""
        return self._encode(self.mean.new_zeros(1, 3, size, size), size)[1]

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b l d"]:
        """Return the tokens in float32, in row-major order.

        Args:
            images: floats in [0, 1] or uint8, not normalized (see `denormalize`); resized to the encoder's size if
                needed (bicubic, antialiased).

        Raises:
            ValueError: the network returns neither a map nor a square grid of tokens.
        """
        return self._encode(images)[0]

    def _encode(self, images: Tensor, size: int | None = None) -> tuple[Tensor, tuple[int, int]]:
        size = size or self.size
        values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if values.shape[-2:] != (size, size):
            values = interpolate(values, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        values = ((values - self.mean.float()) / self.std.float()).to(self.mean.dtype)
        self.network.eval()
        with torch.no_grad(), torch.autocast(values.device.type, self.autocast, enabled=self.autocast is not None):
            return _tokens(self._take_map(self.network, values), self.name)

    def train(self, mode: bool = True) -> "FeatureEncoder":
        """Stay in evaluation mode whatever the mode."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FeatureEncoder":
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)


def denormalize(images: Float[Tensor, "b 3 h w"], mean: Triple, std: Triple) -> Float[Tensor, "b 3 h w"]:
    """Undo normalization: return images * std + mean, in [0, 1]."""
    scale, shift = (images.new_tensor(triple).view(3, 1, 1) for triple in (std, mean))
    return images * scale + shift


def _call(module: nn.Module, images: Tensor) -> Tensor:
    return module(images)


def _tokens(features: Any, name: str) -> tuple[Tensor, tuple[int, int]]:
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"expected a map or tokens from the encoder {name}, got {found}; give take_map= to FeatureEncoder"
        )
    if features.ndim == 4:
        return features.flatten(2).transpose(1, 2).float(), (features.shape[2], features.shape[3])
    side = isqrt(features.shape[1])
    if side * side != features.shape[1]:
        raise ValueError(
            f"expected a square grid of tokens from the encoder {name}, got {features.shape[1]}; "
            "drop prefix tokens in take_map"
        )
    return features.float(), (side, side)
