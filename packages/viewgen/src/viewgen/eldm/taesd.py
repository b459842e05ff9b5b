"""TAEF2: a tiny pretrained autoencoder of the TAESD family with 32 channels at an eighth of the side.

The weights (https://github.com/madebyollin/taesd, MIT) are two files of tensors by position in a sequence. TAESD's own
(4 or 16 channels) are diffusers' ``AutoencoderTiny`` and need none of this.

Shapes: B images of a batch, H, W their sides in pixels, C, h, w the channels and sides of the latents.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import relu

PARTS = ("encoder", "decoder")
LATENT_RANGE = 3.0  # the decoder squashes latents to (-3, 3)


class TAEF2(ModelMixin, ConfigMixin):
    """Images in [-1, 1] to latents and back, called as diffusers' ``AutoencoderTiny`` is.

    Args:
        latent_channels: C.
        block_out_channels: width of each level; n levels shrink an image 2^(n - 1)-fold.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 32, block_out_channels: Sequence[int] = (64, 64, 64, 64)) -> None:
        super().__init__()
        width = block_out_channels[0]

        def blocks(count: int, pooled: bool = False) -> list[nn.Module]:
            return [ResidualBlock(width, pooled) for _ in range(count)]

        def down(pooled: bool = False) -> list[nn.Module]:
            return [nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), *blocks(3, pooled)]

        def up(count: int) -> list[nn.Module]:
            return [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False), *blocks(count)]

        first, last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, latent_channels, 3, padding=1)
        self.encoder = nn.Sequential(first, *blocks(1), *down(), *down(), *down(pooled=True), last)
        first, last = nn.Conv2d(latent_channels, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        low = blocks(3, pooled=True)
        self.decoder = nn.Sequential(Squash(), first, nn.ReLU(), *low, *up(3), *up(3), *up(1), last)

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> AutoencoderTinyOutput:
        """Return the latents."""
        return AutoencoderTinyOutput(latents=self.encoder((images + 1) / 2))

    def decode(self, latents: Float[Tensor, "B C h w"]) -> DecoderOutput:
        """Return the images."""
        return DecoderOutput(sample=2 * self.decoder(latents).clamp(0, 1) - 1)


class ResidualBlock(nn.Module):
    """Three convolutions added to the input.

    Args:
        width: channels.
        pooled: first add two 1 x 1 convolutions around a group norm, whose statistics are of the whole image.
    """

    def __init__(self, width: int, pooled: bool) -> None:
        super().__init__()

        def convolution() -> nn.Module:
            return nn.Conv2d(width, width, 3, padding=1)

        self.conv = nn.Sequential(convolution(), nn.ReLU(), convolution(), nn.ReLU(), convolution())
        wide, narrow = nn.Conv2d(width, 4 * width, 1, bias=False), nn.Conv2d(4 * width, width, 1, bias=False)
        self.pool = nn.Sequential(wide, nn.GroupNorm(4, 4 * width), nn.ReLU(), narrow) if pooled else None

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """See the class."""
        x = x if self.pool is None else x + self.pool(x)
        return relu(self.conv(x) + x)


class Squash(nn.Module):
    """Bound latents smoothly."""

    def forward(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """See the class."""
        return LATENT_RANGE * (latents / LATENT_RANGE).tanh()


def taef2_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the weight files of encoder and decoder in a folder; empty unless both are there."""
    found: dict[str, Path] = {}
    for part in PARTS:
        paths = [Path(folder) / f"taef2_{part}{suffix}" for suffix in (".safetensors", ".pth")]
        if path := next(filter(Path.is_file, paths), None):
            found[part] = path
    return found if len(found) == len(PARTS) else {}


def load_taef2(files: dict[str, Path]) -> TAEF2:
    """Return the autoencoder with the weights of ``taef2_files``, in float32.

    Raises:
        ValueError: if a file is damaged, or its tensors are not those of this network.
    """
    model = TAEF2()
    for part, path in files.items():
        state = read_tensors(path)
        expected = {name: value.shape for name, value in getattr(model, part).state_dict().items()}
        found = {name: value.shape for name, value in state.items()}
        if found != expected:
            names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise ValueError(
                f"{path} does not hold TAEF2's {part}: {len(names)} of {len(expected)} tensors are missing, "
                f"superfluous or of another shape ({', '.join(names[:2])}); download it again"
            )
        getattr(model, part).load_state_dict({name: value.to(torch.float32) for name, value in state.items()})
    return model


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; no code in it is run.

    Raises:
        ValueError: if it is damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # a broken file raises many unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is no file of tensors ({reason}); download it again") from error
