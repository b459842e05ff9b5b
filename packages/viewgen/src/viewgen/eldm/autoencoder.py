"""Conversion between uint8 images and the diffusion model's input: scaled pixels, or a frozen autoencoder's latents.

Shapes: B images of a batch, K their channels, H, W their sides in pixels, C, h, w the channels and sides of the
latents.
"""

import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from genviews_core.backbones import backbone_hash
from genviews_core.tensor_files import save_tensors
from viewgen.eldm.taesd import TAEF2, load_taef2, taef2_files

LOCAL_SAFETENSORS: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
AUTOENCODERS = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
    "TAEF2": TAEF2,
    "VQModel": VQModel,
}
UNSCALED = (AutoencoderTiny, TAEF2)  # their scaling_factor is 1 or missing, whatever their latents' spread
STATISTICS_FILE = "latent_statistics.safetensors"


class Autoencoder:
    """Pixels in [-1, 1] when ``module`` is None; otherwise latents of about unit variance.

    These are the module's latents times its ``scaling_factor``, or, for a TAESD, standardized per channel by
    ``statistics``.

    Args:
        module: a diffusers AutoencoderKL, VQModel or AutoencoderTiny, or a TAEF2.
        bf16: bfloat16 autocast in both directions.
        statistics: mean and standard deviation of the module's latents per channel.
        channels: K.

    Raises:
        ValueError: if the module takes images of another number of channels.
    """

    def __init__(
        self,
        module: nn.Module | None,
        *,
        bf16: bool = False,
        statistics: tuple[Float[Tensor, " C"], Float[Tensor, " C"]] | None = None,
        channels: int = 3,
    ) -> None:
        self.module: Any = None if module is None else module.eval().requires_grad_(False)
        self.bf16, self.statistics, self.channels = bf16, statistics, channels
        own = getattr(getattr(module, "config", None), "in_channels", 3)
        if module is not None and own != channels:
            raise ValueError(
                f"expected an autoencoder of images of {channels} channels, got a {type(module).__name__} of {own}; "
                "train one on your images (--autoencoder train, viewgen.eldm.train_autoencoder), or denoise pixels"
            )
        self.device = torch.device("cpu")

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None, *, bf16: bool = False, channels: int = 3) -> "Autoencoder":
        """Read a diffusers autoencoder, or TAEF2's two files of weights; None stands for pixels.

        Raises:
            ValueError: if the folder holds none of these, its weights do not fit, or it takes images of another number
                of channels.
        """
        if folder is None:
            return cls(None, channels=channels)
        config = Path(folder) / "config.json"
        if not config.is_file() and (files := taef2_files(folder)):
            return cls(load_taef2(files), bf16=bf16, channels=channels)
        name = json.loads(config.read_text())["_class_name"] if config.is_file() else "no config.json"
        if name not in AUTOENCODERS:
            raise ValueError(
                f"expected a folder of a diffusers {', '.join(AUTOENCODERS)}, or of taef2_encoder and taef2_decoder "
                f"(.pth or .safetensors), got {folder} with {name}"
            )
        module: Any = AUTOENCODERS[name].from_pretrained(folder, **LOCAL_SAFETENSORS)
        module.register_to_config(_name_or_path="")  # a copy of it should not say where it came from
        autoencoder = cls(module, bf16=bf16, channels=channels)
        autoencoder.load_statistics(folder)
        return autoencoder

    @property
    def lacks_statistics(self) -> bool:
        """Whether latents have to be measured with ``measure`` before they are of unit variance."""
        return isinstance(self.module, UNSCALED) and self.statistics is None

    @torch.no_grad()
    def measure(self, batches: Iterable[UInt8[Tensor, "B K H W"]]) -> None:
        """Take mean and standard deviation of the latents per channel from images."""
        count, total, squares = 0, 0.0, 0.0
        for images in batches:
            latents = self._module_latents(images).double()
            count += latents.numel() // latents.shape[1]
            total = total + latents.sum(dim=(0, 2, 3)).cpu()
            squares = squares + latents.square().sum(dim=(0, 2, 3)).cpu()
        mean = torch.as_tensor(total) / count
        std = (torch.as_tensor(squares) / count - mean.square()).clamp_min(1e-12).sqrt()
        self.statistics = mean.float(), std.float()

    def save_statistics(self, folder: str | os.PathLike[str]) -> None:
        """Write them beside the autoencoder's weights, if there are any."""
        if self.statistics is not None:
            save_tensors(Path(folder) / STATISTICS_FILE, dict(zip(("mean", "std"), self.statistics, strict=True)))

    def load_statistics(self, folder: str | os.PathLike[str]) -> None:
        """Read what ``save_statistics`` wrote, if it is there."""
        path = Path(folder) / STATISTICS_FILE
        if path.is_file():
            tensors = load_file(path)
            self.statistics = tensors["mean"], tensors["std"]

    @cached_property
    def hash(self) -> str | None:
        """Hash of the weights; None for pixels."""
        return None if self.module is None else backbone_hash(self.module)

    def to(self, device: str | torch.device) -> "Autoencoder":
        """Move the module, if there is one."""
        self.device = torch.device(device)
        if self.module is not None:
            self.module.to(device, memory_format=torch.channels_last)
        return self

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, h, w) of a square image of that resolution."""
        if self.module is None:
            return self.channels, resolution, resolution
        config = self.module.config
        levels = config.encoder_block_out_channels if isinstance(self.module, AutoencoderTiny) else None
        shrink = 2 ** (len(levels or config.block_out_channels) - 1)
        return config.latent_channels, resolution // shrink, resolution // shrink

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "B K H W"]) -> Float[Tensor, "B C h w"]:
        """Images to pixels in [-1, 1] or to latents (a posterior's mode), on the module's device."""
        if self.module is None:
            return to_pixels(images.to(self.device))
        latents = self._module_latents(images)
        if self.statistics is None:
            return latents * self.module.config.scaling_factor
        mean, std = self._broadcast_statistics()
        return (latents - mean) / std

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C h w"]) -> UInt8[Tensor, "B K H W"]:
        """The inverse, rounded and clipped to 8 bits."""
        pixels = latents
        if self.module is not None:
            if self.statistics is None:
                latents = latents / self.module.config.scaling_factor
            else:
                mean, std = self._broadcast_statistics()
                latents = latents * std + mean
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                pixels = self.module.decode(latents).sample
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def _module_latents(self, images: UInt8[Tensor, "B K H W"]) -> Float[Tensor, "B C h w"]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            encoded = self.module.encode(to_pixels(images.to(self.device)))
        latents = encoded.latent_dist.mode() if isinstance(self.module, AutoencoderKL) else encoded.latents
        return latents.float()

    def _broadcast_statistics(self) -> list[Float[Tensor, "C 1 1"]]:
        assert self.statistics is not None
        return [values.to(self.device).view(-1, 1, 1) for values in self.statistics]


def to_pixels(images: UInt8[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
    """8 bits to [-1, 1]."""
    return images.float() / 127.5 - 1
