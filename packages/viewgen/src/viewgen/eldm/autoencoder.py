"""Between uint8 images and what the diffusion model denoises: scaled pixels, or a frozen autoencoder's latents.

Shapes: B images of a batch, H, W their sides in pixels, C, h, w the channels and sides of the latents.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, VQModel
from jaxtyping import Float, UInt8
from torch import Tensor, nn

AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}


class Autoencoder:
    """Pixels in [-1, 1] when ``module`` is None; otherwise latents times the autoencoder's ``scaling_factor``."""

    def __init__(self, module: nn.Module | None) -> None:
        self.module: Any = None if module is None else module.eval().requires_grad_(False)
        self.is_vq = isinstance(module, VQModel)

    @classmethod
    def load(cls, folder: str | os.PathLike[str] | None) -> "Autoencoder":
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
        return cls(AUTOENCODERS[name].from_pretrained(folder, low_cpu_mem_usage=False))

    def to(self, device: str | torch.device) -> "Autoencoder":
        """Move the module, if there is one."""
        if self.module is not None:
            self.module.to(device)
        return self

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, h, w) of a square image of that resolution."""
        if self.module is None:
            return 3, resolution, resolution
        shrink = 2 ** (len(self.module.config.block_out_channels) - 1)
        return self.module.config.latent_channels, resolution // shrink, resolution // shrink

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images to pixels in [-1, 1] or to latents (a posterior's mode)."""
        pixels = images.float() / 127.5 - 1
        if self.module is None:
            return pixels
        encoded = self.module.encode(pixels)
        latents = encoded.latents if self.is_vq else encoded.latent_dist.mode()
        return latents * self.module.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "B C h w"]) -> UInt8[Tensor, "B 3 H W"]:
        """The inverse, rounded and clipped to 8 bits."""
        pixels = latents
        if self.module is not None:
            pixels = self.module.decode(latents / self.module.config.scaling_factor).sample
        return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
