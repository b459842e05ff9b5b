"""What the training of an autoencoder changes, and what one batch tells it.

Shapes: B images of this process's part of a batch, R the resolution, C, h, w the channels and sides of the latents.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from viewgen.eldm.autoencoder import to_pixels
from viewgen.eldm.config import AutoencoderConfig
from viewgen.eldm.discriminator import PatchDiscriminator
from viewgen.eldm.reconstruction import adaptive_weight, hinge_loss, normal_divergence, pyramid_error
from viewgen.eldm.weights import Weights


@dataclass(frozen=True, kw_only=True)
class CoderBatch:
    """Images, some mirrored, and the noise their latents are drawn with.

    Attributes:
        step: the step they are for.
        images: 8 bits.
        noise: standard normal.
    """

    step: int
    images: UInt8[Tensor, "B 3 R R"]
    noise: Float[Tensor, "B C h w"]


class Reconstruction(nn.Module):
    """There and back: images to a normal distribution of latents, a draw from it, and the image of the draw."""

    def __init__(self, coder: Any) -> None:
        super().__init__()
        self.coder = coder

    def forward(
        self, pixels: Float[Tensor, "B 3 R R"], noise: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B 3 R R"], Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Reconstructions, and the distribution's mean and log variance."""
        latents = self.coder.encode(pixels).latent_dist
        decoded = self.coder.decode(latents.mean + latents.std * noise).sample
        return decoded.float(), latents.mean.float(), latents.logvar.float()


class CoderLearner:
    """An autoencoder and, where the configuration wants one, its discriminator.

    Both learn from one sum: while the autoencoder's terms are computed the discriminator is frozen, and its own term
    sees the reconstructions detached. So one backward pass gives each the gradient of its own loss alone.

    Args:
        config: of network and training.
        device: where it learns.
        world: processes that learn together.
    """

    def __init__(self, config: AutoencoderConfig, device: str | torch.device, world: int = 1) -> None:
        self.config, self.device = config, torch.device(device)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        coder, discriminator = build_networks(config)
        self.coder = coder.to(device).to(memory_format=layout).train()
        self.discriminator = discriminator.to(device).to(memory_format=layout).train()
        parts = (self.coder, self.discriminator) if config.adversarial_weight else (self.coder,)
        self.weights = Weights(nn.ModuleList(parts), config, parts)
        self.reconstruct: Any = Reconstruction(self.coder)
        self.discriminate: Any = self.discriminator
        if world > 1:
            self.reconstruct = DistributedDataParallel(self.reconstruct)
            self.discriminate = DistributedDataParallel(self.discriminator) if config.adversarial_weight else None

    def loss(self, batch: CoderBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Error, pyramid, divergence and, once the discriminator has begun, its two terms.

        ``|d| + l2 d^2 + p Lap(d) + k KL / (3 R^2) + a w_adaptive (-D(x')) + hinge``, with d = x' - x.
        """
        config, pixels = self.config, to_pixels(batch.images.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            decoded, mean, log_variance = self.reconstruct(pixels, batch.noise.to(self.device))
        difference = decoded - pixels
        absolute, divergence = difference.abs().mean(), normal_divergence(mean, log_variance)
        error = absolute + config.l2_weight * difference.square().mean()
        error = error + config.pyramid_weight * pyramid_error(difference)
        total = error + config.kl_weight * divergence / pixels[0].numel()
        figures = {"l1": absolute, "kl": divergence}
        if config.adversarial_weight and batch.step >= config.adversarial_start:
            adversarial, hinge = self._contest(pixels, decoded, error)
            total = total + config.adversarial_weight * adversarial + hinge
            figures["discriminator"] = hinge
        return total, {name: figure.detach() for name, figure in figures.items()}

    def _contest(
        self, pixels: Float[Tensor, "B 3 R R"], decoded: Float[Tensor, "B 3 R R"], error: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The autoencoder's weighted adversarial term, and the discriminator's loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            self.discriminator.requires_grad_(False)
            adversarial = -self.discriminator(decoded).float().mean()
            self.discriminator.requires_grad_(True)
            real, fake = self.discriminate(torch.cat([pixels, decoded.detach()])).float().chunk(2)
        weight = adaptive_weight(error, adversarial, self.coder.decoder.conv_out.weight)
        return weight * adversarial, hinge_loss(real, fake)


def build_networks(config: AutoencoderConfig) -> tuple[Any, PatchDiscriminator]:
    """An ``AutoencoderKL`` and a discriminator, with weights drawn from the configuration's seed."""
    levels = len(config.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        coder: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            block_out_channels=config.channels,  # pyright: ignore[reportArgumentType]
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            sample_size=config.resolution,
            scaling_factor=1.0,
        )
        nn.init.zeros_(coder.quant_conv.weight[config.latent_channels :])
        nn.init.constant_(coder.quant_conv.bias[config.latent_channels :], config.initial_log_variance)
        return coder, PatchDiscriminator(config.discriminator_channels, config.discriminator_layers)
