"""What the training of an embedding-conditioned diffusion model changes, and what one batch tells it.

Shapes: B images of this process's part of a batch, C, H, W the channels and sides of what is denoised, D the embedding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import EpochOrder
from viewgen.eldm.draws import Draws
from viewgen.eldm.model import Condition, build_denoiser, build_scheduler
from viewgen.eldm.weights import Weights
from viewgen.embed import Embeddings

SMALLEST_SIGMA = 0.1  # bounds the weight of nearly clean images
Batch = tuple[UInt8[Tensor, "B 3 R R"] | Float16[Tensor, "B C H W"], Float[Tensor, "B D"], Draws]


class Learner:
    """The network and the noise it learns to remove.

    Args:
        config: of network, noise and training.
        embeddings: what the condition is standardised by.
        autoencoder: of the latents; without a module in it, pixels are denoised.
        device: where it learns.
        world: processes that learn together.
    """

    def __init__(
        self,
        config: ELDMConfig,
        embeddings: Embeddings,
        autoencoder: Autoencoder,
        device: str | torch.device,
        world: int = 1,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.autoencoder = autoencoder.to(device)
        self.shape = self.autoencoder.latent_shape(config.resolution)
        denoiser = build_denoiser(config, embeddings.dim, self.shape[0], self.shape[1])
        fit_condition(denoiser.condition, embeddings, config.seed)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.denoiser = denoiser.to(device).to(memory_format=layout).train()
        self.weights = Weights(self.denoiser, config)
        self.network = DistributedDataParallel(self.denoiser) if world > 1 else self.denoiser
        self.noise_process = build_scheduler(config)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of one batch: images or their latents, embeddings and draws."""
        images, embeddings, draws = batch
        clean = self.autoencoder.encode(images) if images.dtype == torch.uint8 else images.to(self.device).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            condition, vectors = self.denoiser.condition, embeddings.to(self.device)
            return denoising_loss(self.network, condition, self.noise_process, clean, vectors, draws), {}


def denoising_loss(
    network: Callable[..., Tensor],
    condition: Condition,
    noise_process: Any,
    clean: Float[Tensor, "B C H W"],
    embeddings: Float[Tensor, "B D"],
    draws: Draws,
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted noise, velocity, or clean image.

    ``x_t = sqrt(a_t) x + sqrt(1 - a_t) n``; the target is n, or v = sqrt(a_t) n - sqrt(1 - a_t) x
    (https://arxiv.org/abs/2006.11239, https://arxiv.org/abs/2202.00512), or x with the weight that makes it the error
    of v, 1 / (1 - a_t), at most ``1 / SMALLEST_SIGMA**2`` (https://arxiv.org/abs/2511.13720).
    """
    device = clean.device
    noise, timestep, keep = (part.to(device) for part in (draws.noise, draws.timestep, draws.keep))
    noisy = noise_process.add_noise(clean, noise, timestep)
    standardised = condition.standardise(embeddings) * keep.unsqueeze(1)
    predicted = network(noisy, timestep, standardised)
    match noise_process.config.prediction_type:
        case "epsilon":
            return (predicted - noise).square().mean()
        case "v_prediction":
            return (predicted - noise_process.get_velocity(clean, noise, timestep)).square().mean()
        case _:
            sigma = (1 - noise_process.alphas_cumprod.to(device)[timestep]).sqrt().clamp_min(SMALLEST_SIGMA)
            return ((predicted - clean) / sigma.view(-1, 1, 1, 1)).square().mean()


def fit_condition(condition: Condition, embeddings: Embeddings, seed: int, most: int = 10_000) -> None:
    """Set the mean and standard deviation from (at most ``most``) normalised embeddings."""
    order = EpochOrder(len(embeddings), seed)
    rows = sorted(order(place) for place in range(min(most, len(embeddings))))
    vectors = nn.functional.normalize(torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), dim=1).double()
    std = vectors.std(dim=0, unbiased=False)
    condition.mean.copy_(vectors.mean(dim=0))
    condition.std.copy_(std.clamp_min(1e-3 * std.mean().clamp_min(1e-6)))
