"""IC-GAN as a generator of views: GenCL's noise-based one (https://arxiv.org/abs/2109.05070).

Shapes: B images of a batch; H, W their sides in pixels; Z noise; D features.
"""

import os
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from torch.special import ndtr, ndtri

from genviews_core.backbones import backbone_hash
from viewgen.fingerprint import file_hash
from viewgen.icgan.checkpoint import find_weights, load_icgan
from viewgen.icgan.features import FeatureExtractor
from viewgen.seeding import generator_for

Noise = Literal["truncated", "normal"]
FLOAT32_STEP = 2.0**-24  # between the values of torch.rand


class ICGANGenerator:
    """Views generated from noise and the source's SwAV features, without any label.

    Args:
        weights: an official ``G_ema_best*.pth`` of an icgan_* model without labels, or its experiment's folder.
        features: SwAV's ``swav_800ep_pretrain.pth.tar``, or a folder with its ResNet-50 as safetensors. Only needed to
            make conditions from images, not with cached ones.
        truncation: truncation of the noise if no strength is given: 0 always gives the same view, large values the full
            variety; the official demo uses 0.7.
        noise: "truncated" is the demo's standard normal noise between -2 and 2 times the truncation; "normal" is the
            whole normal distribution, as in the official evaluation, with the strength (1 if none is given) as its
            standard deviation.
        align_corners: option of the upsampling to 224 px before the features: True as in the official demo, False as in
            the official preparation of training features.
        output_size: size of the views in pixels; the network's resolution by default.
        device: device to run on.
        dtype: dtype of the network; noise and features are in float32.
        compile: compile the network with torch.compile.

    Raises:
        ValueError: if weights are missing, refused or do not fit, or an option is out of range.
    """

    name = "icgan"
    licence = "CC-BY-NC 4.0"
    supervision = "none"
    strength_unit = "truncation"
    input_size = None

    def __init__(
        self,
        *,
        weights: str | os.PathLike[str],
        features: str | os.PathLike[str] | None = None,
        truncation: float = 0.7,
        noise: Noise = "truncated",
        align_corners: bool = True,
        output_size: int | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        compile: bool = False,
    ) -> None:
        if noise not in get_args(Noise):
            raise ValueError(f"expected noise 'truncated' or 'normal', got {noise!r}")
        if output_size is not None and output_size < 1:
            raise ValueError(f"expected output_size of 1 or more pixels, got {output_size}")
        path = find_weights(weights)
        network = load_icgan(path).to(device, getattr(torch, dtype)).to(memory_format=torch.channels_last)
        self.config = network.config
        self.network = torch.compile(network) if compile else network
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.noise, self.output_size = noise, output_size
        self.strength_unit = "truncation" if noise == "truncated" else "standard deviation"
        self.default_strength = truncation if noise == "truncated" else 1.0
        self.extractor = None
        if features is not None:
            size = self.config.resolution
            self.extractor = FeatureExtractor(features, size=size, align_corners=align_corners, device=device)
        self.encoder_hash = None if self.extractor is None else backbone_hash(self.extractor.network)
        self.model_hash = file_hash(path)
        self.model_id = f"icgan-{self.config.resolution}px-ch{self.config.channels[0] // 16}"
        self.settings = {
            "default_strength": self.default_strength,
            "noise": noise,
            "encoder_hash": self.encoder_hash,
            "align_corners": align_corners,
            "output_size": output_size,
            "dtype": dtype,
        }
        _check_strength(torch.tensor([self.default_strength]), 1)

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Compute the images' SwAV features, normalized to length 1.

        Raises:
            ValueError: if the generator was made without ``features``.
        """
        return self._needed_extractor()(images)

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 S S"]:
        """Resize an image to the generator's resolution; ``condition`` applies ``encode`` to a batch of these."""
        return self._needed_extractor().prepare(image)

    def encode(self, prepared: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Compute the SwAV features of prepared images, normalized to length 1."""
        return self._needed_extractor().encode(prepared)

    def _needed_extractor(self) -> FeatureExtractor:
        if self.extractor is None:
            raise ValueError(
                "expected features=, the path of SwAV's swav_800ep_pretrain.pth.tar, to compute conditions of "
                "images; got none"
            )
        return self.extractor

    @torch.no_grad()
    def generate(
        self, condition: Float[Tensor, "B D"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """Generate one view per row of features; the norm of a row does not matter.

        Args:
            condition: features, from ``condition``, a cache, or between two images.
            seeds: one per view.
            strength: one truncation (or standard deviation) per view.

        Returns:
            The network's images rounded to the nearest of the 256 levels (the official scripts round down).

        Raises:
            ValueError: if an argument has another length, or is not finite.
        """
        _check_features(condition, self.config.features, len(seeds))
        if strength is None:
            strength = torch.full((len(seeds),), self.default_strength)
        _check_strength(strength, len(seeds))
        draw = truncated_noise if self.noise == "truncated" else normal_noise
        z = draw(seeds, strength.cpu(), self.config.dim_z)
        features = normalize(condition.float())
        images = self.network(*(part.to(self.device, self.dtype) for part in (z, features))).float()
        if self.output_size not in (None, self.config.resolution):
            images = interpolate(images, (self.output_size, self.output_size), mode="bicubic", antialias=True)
        return images.add(1).mul(127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def truncated_noise(seeds: Sequence[int], truncation: Float[Tensor, " B"], dim: int) -> Float32[Tensor, "B {dim}"]:
    """Draw standard normal noise truncated to +-2 and multiplied by each truncation, by the inverse CDF.

    With one seed the noise grows smoothly with the truncation.

    Args:
        seeds: one per row.
        truncation: at least 0, which gives zeros.
        dim: the noise's length.
    """
    draws = torch.stack([torch.rand(dim, generator=generator_for(seed, "noise")) for seed in seeds])
    uniform = draws.double() + FLOAT32_STEP / 2  # never 0 or 1
    low = ndtr(-2 * truncation.double()).unsqueeze(1)
    return ndtri(low + uniform * (1 - 2 * low)).float()


def normal_noise(seeds: Sequence[int], deviation: Float[Tensor, " B"], dim: int) -> Float32[Tensor, "B {dim}"]:
    """Draw normal noise with the given standard deviations."""
    rows = [torch.randn(dim, generator=generator_for(seed, "noise")) for seed in seeds]
    return torch.stack(rows) * deviation.float().unsqueeze(1)


def _check_features(features: Tensor, width: int, seeds: int) -> None:
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"expected rows of {width} SwAV features, got shape {tuple(features.shape)}")
    if len(features) != seeds:
        raise ValueError(f"expected one seed per condition, got {len(features)} conditions and {seeds} seeds")
    norms = features.float().norm(dim=1)
    if not bool((torch.isfinite(norms) & (norms > 0)).all()):
        raise ValueError("expected finite, nonzero conditions, got others; compute the features again")


def _check_strength(strength: Tensor, views: int) -> None:
    if strength.shape != (views,):
        raise ValueError(f"expected one strength per view ({views}), got shape {tuple(strength.shape)}")
    if not bool((torch.isfinite(strength) & (strength >= 0)).all()):
        raise ValueError(f"expected finite strengths of 0 or more, got {strength.tolist()[:3]}")
