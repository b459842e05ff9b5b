"""Train the autoencoder of a latent diffusion model on a folder of images.

Shapes: B images of this process's slice of a batch, K their channels, R the resolution, C, h, w the channels and
sides of the latents.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genviews_core.channels import RGB
from genviews_core.files import writing
from genviews_core.pixel_range import Range
from viewgen.eldm.autoencoder import to_pixels
from viewgen.eldm.autoencoder_losses import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    normal_divergence,
    pyramid_error,
)
from viewgen.eldm.config import AutoencoderConfig
from viewgen.eldm.data import (
    EpochPermutation,
    RankSlice,
    TrainingImages,
    draw_uniform_and_normal,
    rank_slices,
    read_ahead,
)
from viewgen.eldm.model import save_diffusers
from viewgen.eldm.training import CONFIG_FILE, OnStep, OptimState, load_checkpoint, rank_and_world_size, train
from viewgen.fingerprint import ensure_same_config, keys_hash
from viewgen.keys import list_images


@dataclass(frozen=True, kw_only=True)
class AutoencoderBatch:
    """Images, some mirrored, and the noise that their latents are sampled with.

    Attributes:
        step: training step.
        images: uint8 images.
        noise: standard normal noise.
    """

    step: int
    images: UInt8[Tensor, "B K R R"]
    noise: Float[Tensor, "B C h w"]


class Reconstruction(nn.Module):
    """Encode images to normal distributions of latents, sample them, and decode the samples."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self, pixels: Float[Tensor, "B K R R"], noise: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B K R R"], Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Return the reconstructions, and the mean and log variance of the distributions."""
        latents = self.vae.encode(pixels).latent_dist
        decoded = self.vae.decode(latents.mean + latents.std * noise).sample
        return decoded.float(), latents.mean.float(), latents.logvar.float()


class AutoencoderTrainer:
    """An autoencoder in training and, if configured, its discriminator.

    Both losses are added up: the discriminator is frozen while the autoencoder's terms are computed, and its own loss
    sees detached reconstructions. One backward pass thus gives each network the gradient of its own loss only.

    Args:
        config: configuration of network and training.
        device: device to train on.
        world: number of processes.
        image_channels: K.
    """

    def __init__(
        self, config: AutoencoderConfig, device: str | torch.device, world: int = 1, image_channels: int = 3
    ) -> None:
        self.config, self.device = config, torch.device(device)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        vae, discriminator = build_networks(config, image_channels)
        self.vae = vae.to(device).to(memory_format=layout).train()
        self.discriminator = discriminator.to(device).to(memory_format=layout).train()
        parts = (self.vae, self.discriminator) if config.adversarial_weight else (self.vae,)
        self.optim = OptimState(nn.ModuleList(parts), config, parts)
        self.reconstruct: Any = Reconstruction(self.vae)
        self.discriminate: Any = self.discriminator
        if world > 1:
            self.reconstruct = DistributedDataParallel(self.reconstruct)
            self.discriminate = DistributedDataParallel(self.discriminator) if config.adversarial_weight else None

    def loss(self, batch: AutoencoderBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the sum of the losses: error, pyramid, KL and, from ``adversarial_start`` on, the discriminator's.

        ``|d| + l2 d^2 + p Lap(d) + k KL / (K R^2) + a w_adaptive (-D(x')) + hinge``, with d = x' - x.
        """
        config, pixels = self.config, to_pixels(batch.images.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            decoded, mean, log_variance = self.reconstruct(pixels, batch.noise.to(self.device))
        difference = decoded - pixels
        absolute, divergence = difference.abs().mean(), normal_divergence(mean, log_variance)
        error = absolute + config.l2_weight * difference.square().mean()
        error = error + config.pyramid_weight * pyramid_error(difference)
        total = error + config.kl_weight * divergence / pixels[0].numel()
        metrics = {"l1": absolute, "kl": divergence}
        if config.adversarial_weight and batch.step >= config.adversarial_start:
            adversarial, hinge = self._adversarial_losses(pixels, decoded, error)
            total = total + config.adversarial_weight * adversarial + hinge
            metrics["discriminator"] = hinge
        return total, {name: metric.detach() for name, metric in metrics.items()}

    def _adversarial_losses(
        self, pixels: Float[Tensor, "B K R R"], decoded: Float[Tensor, "B K R R"], error: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the autoencoder's weighted adversarial loss, and the discriminator's loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            self.discriminator.requires_grad_(False)
            adversarial = -self.discriminator(decoded).float().mean()
            self.discriminator.requires_grad_(True)
            real, fake = self.discriminate(torch.cat([pixels, decoded.detach()])).float().chunk(2)
        weight = adaptive_weight(error, adversarial, self.vae.decoder.conv_out.weight)
        return weight * adversarial, hinge_loss(real, fake)


def build_networks(config: AutoencoderConfig, image_channels: int = 3) -> tuple[Any, PatchDiscriminator]:
    """Return an ``AutoencoderKL`` and a discriminator, initialized from the configuration's seed."""
    levels = len(config.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae: Any = AutoencoderKL(
            in_channels=image_channels,
            out_channels=image_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            block_out_channels=config.channels,  # pyright: ignore[reportArgumentType]
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            sample_size=config.resolution,
            scaling_factor=1.0,
        )
        nn.init.zeros_(vae.quant_conv.weight[config.latent_channels :])
        nn.init.constant_(vae.quant_conv.bias[config.latent_channels :], config.initial_log_variance)
        return vae, PatchDiscriminator(config.discriminator_channels, config.discriminator_layers, image_channels)


SCALE_IMAGES = 2048  # images whose latents the scaling factor is computed from
SCALE_BATCH = 16


def train_autoencoder(
    images_root: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    config: AutoencoderConfig,
    *,
    keys: Sequence[str] | None = None,
    on_step: OnStep | None = None,
    device: str | torch.device = "cpu",
    checkpoint_seconds: float = 60.0,
    workers: int = 4,
    channels: int = 3,
    value_range: Range | None = None,
) -> Path:
    """Train an autoencoder of images on their pixels alone; resume an interrupted training.

    Under torch.distributed, every process calls this and takes its slice of each batch; the main process writes files.

    Args:
        images_root: folder of images; no labels are read.
        out_folder: becomes the folder of a diffusers AutoencoderKL with the averaged weights, whose ``scaling_factor``
            is one over the standard deviation of the latents. A finished autoencoder in it is not trained again.
        config: configuration of network and training.
        keys: keys of the images, for example ``Embeddings.keys``; by default all images under ``images_root``.
        on_step: called with (steps done, total steps, {"loss", "l1", "kl", "lr", "images_per_second"}); from
            ``adversarial_start`` on also "discriminator", the hinge loss.
        device: device to train on.
        checkpoint_seconds: seconds between checkpoints.
        workers: threads that read images.
        channels: K; three for RGB.
        value_range: see ``viewgen.keys.read_key``.

    Returns:
        ``out_folder``.

    Raises:
        ValueError: if the folder holds an autoencoder of another configuration, the batch size is not a multiple of the
            number of processes, or an image cannot be read.
        FloatingPointError: if the loss is not finite; the message names the last checkpoint.
    """
    folder, (rank, world) = Path(out_folder), rank_and_world_size(config.batch_size)
    keys = list_images(images_root) if keys is None else keys
    if rank == 0:
        record = {**asdict(config), "images": keys_hash(keys)}
        if channels != RGB:
            record |= {"image_channels": channels, "value_range": None if value_range is None else list(value_range)}
        ensure_same_config(folder / CONFIG_FILE, record, holds="an autoencoder of another configuration")
    if (folder / "config.json").is_file():
        return folder
    pixels: dict[str, Any] = {"channels": channels, "value_range": value_range}
    images = TrainingImages(Path(images_root), keys, config.resolution, workers=workers, **pixels)
    trainer = AutoencoderTrainer(config, device, world, channels)
    start = load_checkpoint(folder, trainer.optim)
    batches = autoencoder_batches(images, config, rank_slices(config, len(keys), start, rank, world), workers)
    train(trainer, batches, folder, start, is_main=rank == 0, on_step=on_step, checkpoint_seconds=checkpoint_seconds)
    if rank == 0:
        trainer.optim.ema.copy_to(trainer.vae)
        order = EpochPermutation(len(keys), config.seed)
        rows = sorted(order(position) for position in range(min(SCALE_IMAGES, len(keys))))
        scale = 1 / latent_std(trainer.vae.eval(), images, rows, trainer.device, workers)
        save_autoencoder(folder, trainer.vae, scale)
    if world > 1:
        dist.barrier()
    return folder


def autoencoder_batches(
    images: TrainingImages, config: AutoencoderConfig, slices: Iterator[RankSlice], workers: int
) -> Iterator[AutoencoderBatch]:
    """Yield one process's slice of each batch."""
    drawn = ((piece, *draw_uniform_and_normal(piece, config.seed, config.latent_shape)) for piece in slices)
    for_images, for_rest = itertools.tee(drawn)
    requests = ((piece.rows, ((uniform[:, 0] < 0.5) & config.flip).tolist()) for piece, uniform, _ in for_images)
    for pixels, (piece, _, noise) in zip(read_ahead(images, requests, workers=workers), for_rest, strict=True):
        yield AutoencoderBatch(step=piece.step, images=pixels, noise=noise)


@torch.no_grad()
def latent_std(vae: Any, images: TrainingImages, rows: list[int], device: torch.device, workers: int) -> float:
    """Return the standard deviation of the latents (modes) of some images (https://arxiv.org/abs/2112.10752, G)."""
    batches = [rows[start : start + SCALE_BATCH] for start in range(0, len(rows), SCALE_BATCH)]
    requests = ((batch, [False] * len(batch)) for batch in batches)
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for pixels in read_ahead(images, requests, workers=workers):
        modes = vae.encode(to_pixels(pixels.to(device))).latent_dist.mode().double()
        sums += torch.stack([modes.sum(), modes.square().sum()]).cpu()
        count += modes.numel()
    first, second = (sums / count).tolist()
    return (second - first**2) ** 0.5


def save_autoencoder(folder: Path, vae: Any, scale: float) -> None:
    """Write a diffusers folder; ``config.json`` is written last and marks it as complete."""
    vae.register_to_config(scaling_factor=scale)
    with writing(folder):
        save_diffusers(vae, folder / "unfinished")
        for name in ("diffusion_pytorch_model.safetensors", "config.json"):
            (folder / "unfinished" / name).replace(folder / name)
        (folder / "unfinished").rmdir()
