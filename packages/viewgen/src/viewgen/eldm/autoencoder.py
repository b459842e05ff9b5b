"""Between uint8 images and what the diffusion model denoises: scaled pixels, or a frozen autoencoder's latents.

Shapes: B images of a batch, H, W their sides in pixels, C, h, w the channels and sides of the latents.
"""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, VQModel
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genviews_core.backbones import backbone_hash

LOCAL_SAFETENSORS: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}


class Autoencoder:
    """Pixels in [-1, 1] when ``module`` is None; otherwise latents times the autoencoder's ``scaling_factor``.

    Args:
        module: a diffusers AutoencoderKL or VQModel.
        bf16: bfloat16 autocast in both directions.
    """

    def __init__(self, module: nn.Module | None, *, bf16: bool = False) -> None:
        self.module: Any = None if module is None else module.eval().requires_grad_(False)
        self.is_vq, self.bf16 = isinstance(module, VQModel), bf16
        self.device = torch.device("cpu")

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None, *, bf16: bool = False) -> "Autoencoder":
        """Read a diffusers autoencoder; None stands for pixels.

        Raises:
            ValueError: if the folder holds neither an AutoencoderKL nor a VQModel.
        """
        if folder is None:
            return cls(None)
        config = Path(folder) / "config.json"
        name = json.loads(config.read_text())["_class_name"] if config.is_file() else "no config.json"
        if name not in AUTOENCODERS:
            raise ValueError(f"{folder} holds {name}: give the folder of a diffusers {' or '.join(AUTOENCODERS)}")
        module = AUTOENCODERS[name].from_pretrained(folder, **LOCAL_SAFETENSORS)
        module.register_to_config(_name_or_path="")  # a copy of it should not say where it came from
        return cls(module, bf16=bf16)

    @cached_property
    def hash(self) -> str | None:
        """Of the weights; None for pixels."""
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
            return 3, resolution, resolution
        shrink = 2 ** (len(self.module.config.block_out_channels) - 1)
        return self.module.config.latent_channels, resolution // shrink, resolution // shrink

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images to pixels in [-1, 1] or to latents (a posterior's mode), on the module's device."""
        pixels = to_pixels(images.to(self.device))
        if self.module is None:
            return pixels
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            encoded = self.module.encode(pixels)
        latents = encoded.latents if self.is_vq else encoded.latent_dist.mode()
        return latents.float() * self.module.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C h w"]) -> UInt8[Tensor, "B 3 H W"]:
        """The inverse, rounded and clipped to 8 bits."""
        pixels = latents
        if self.module is not None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                pixels = self.module.decode(latents / self.module.config.scaling_factor).sample
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pixels(images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """8 bits to [-1, 1]."""
    return images.float() / 127.5 - 1
