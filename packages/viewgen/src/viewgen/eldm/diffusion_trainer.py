"""Train an embedding-conditioned diffusion model on a folder of images.

Shapes: B images of this process's slice of a batch, K their channels, R the resolution, C, H, W the channels
and sides of what is denoised (pixels or latents), D the embedding's length.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Float16, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genviews_core.channels import RGB
from genviews_core.disk import require_space
from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import (
    EpochPermutation,
    NoiseDraws,
    RankSlice,
    Source,
    TrainingImages,
    draw_noise,
    rank_slices,
    read_ahead,
)
from viewgen.eldm.latents import cache_latents
from viewgen.eldm.model import Condition, build_denoiser, build_scheduler, save_model
from viewgen.eldm.training import CONFIG_FILE, OnStep, OptimState, load_checkpoint, rank_and_world_size, train
from viewgen.embed import Embeddings
from viewgen.fingerprint import ensure_same_config, keys_hash

MIN_SIGMA = 0.1  # bounds the weight of nearly clean images
STATISTICS_IMAGES, STATISTICS_BATCH = 2048, 32
ONLY_UNET = (
    "channels",
    "attention",
    "layers_per_block",
    "head_dim",
    "cross_dim",
    "norm_groups",
    "add_to_time_embedding",
)
ONLY_DIT = ("network", "width", "depth", "heads")  # a record without "network" is of a UNet
RECORD_NAMES = {"timestep_sampling": "timestep_law", "add_to_time_embedding": "in_time"}
Batch = tuple[UInt8[Tensor, "B K R R"] | Float16[Tensor, "B C H W"], Float[Tensor, "B D"], NoiseDraws]


class DiffusionTrainer:
    """A denoiser in training, with its noise process and autoencoder.

    Args:
        config: configuration of network, noise process and training.
        embeddings: the training set's, whose mean and standard deviation standardize the condition.
        autoencoder: encodes images to latents; one without a module means that pixels are denoised.
        device: device to train on.
        world: number of processes.
        compile: compile the network.
    """

    def __init__(
        self,
        config: ELDMConfig,
        embeddings: Embeddings,
        autoencoder: Autoencoder,
        device: str | torch.device,
        world: int = 1,
        *,
        compile: bool = False,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.autoencoder = autoencoder.to(device)
        self.shape = self.autoencoder.latent_shape(config.resolution)
        denoiser = build_denoiser(config, embeddings.dim, self.shape[0], self.shape[1])
        fit_condition(denoiser.condition, embeddings, config.seed)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.denoiser = denoiser.to(device).to(memory_format=layout).train()
        if compile:
            self.denoiser.network.compile()  # without the condition: in one graph, torch 2.15's C++ for bf16 is wrong
        self.optim = OptimState(self.denoiser, config)
        self.network = DistributedDataParallel(self.denoiser) if world > 1 else self.denoiser
        self.noise_process = build_scheduler(config)

    def loss(self, batch: Batch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of one batch: images or their latents, embeddings, and random numbers."""
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
    draws: NoiseDraws,
) -> Float[Tensor, ""]:
    """Return the mean squared error of the predicted noise, velocity, or clean image.

    ``x_t = sqrt(a_t) x + sqrt(1 - a_t) n``; the target is n, or v = sqrt(a_t) n - sqrt(1 - a_t) x
    (https://arxiv.org/abs/2006.11239, https://arxiv.org/abs/2202.00512), or x with the weight that makes it the error
    of v, 1 / (1 - a_t), at most ``1 / MIN_SIGMA**2`` (https://arxiv.org/abs/2511.13720).
    """
    device = clean.device
    noise, timestep, keep = (part.to(device) for part in (draws.noise, draws.timestep, draws.keep))
    noisy = noise_process.add_noise(clean, noise, timestep)
    standardized = condition.standardize(embeddings) * keep.unsqueeze(1)
    predicted = network(noisy, timestep, standardized)
    match noise_process.config.prediction_type:
        case "epsilon":
            return (predicted - noise).square().mean()
        case "v_prediction":
            return (predicted - noise_process.get_velocity(clean, noise, timestep)).square().mean()
        case _:
            sigma = (1 - noise_process.alphas_cumprod.to(device)[timestep]).sqrt().clamp_min(MIN_SIGMA)
            return ((predicted - clean) / sigma.view(-1, 1, 1, 1)).square().mean()


def fit_condition(condition: Condition, embeddings: Embeddings, seed: int, most: int = 10_000) -> None:
    """Set the mean and standard deviation from (at most ``most``) normalized embeddings."""
    order = EpochPermutation(len(embeddings), seed)
    rows = sorted(order(place) for place in range(min(most, len(embeddings))))
    vectors = nn.functional.normalize(torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), dim=1).double()
    std = vectors.std(dim=0, unbiased=False)
    condition.mean.copy_(vectors.mean(dim=0))
    condition.std.copy_(std.clamp_min(1e-3 * std.mean().clamp_min(1e-6)))


STORED = 4
"""A checkpoint holds the weights, their average and the two moments of AdamW."""


def train_eldm(
    images_root: str | os.PathLike[str],
    embeddings: Embeddings,
    out_folder: str | os.PathLike[str],
    config: ELDMConfig,
    *,
    on_step: OnStep | None = None,
    on_encoded: Callable[[int, int], None] | None = None,
    device: str | torch.device = "cpu",
    checkpoint_seconds: float = 60.0,
    autoencoder: str | os.PathLike[str] | None = None,
    latents_cached: bool = True,
    compile: bool = False,
    workers: int = 4,
    on_message: Callable[[str], None] | None = None,
) -> Path:
    """Train a diffusion model that generates an image from its embedding; resume an interrupted training.

    Under torch.distributed, every process calls this and takes its slice of each batch; the main process writes files.

    Args:
        images_root: folder of the images that were embedded; they have the channels of the encoder's images.
        embeddings: embeddings of these images; the model's folder records their encoder.
        out_folder: folder for the model; a finished model in it is not trained again.
        config: configuration of network, noise process and training.
        on_step: called with (steps done, total steps, {"loss", "lr", "images_per_second"}).
        on_encoded: called with (images encoded, images to encode) of this process, before training.
        device: device to train on.
        checkpoint_seconds: seconds between checkpoints.
        autoencoder: folder of an autoencoder that ``Autoencoder.load`` reads, if ``config.latents``. The latents of a
            TAESD are standardized by those of at most ``STATISTICS_IMAGES`` of the images.
        latents_cached: encode each image once and store the latents in out_folder/latents until the end of training
            (16 KiB for an image of 256 px and its mirror image); otherwise every batch is encoded when it is used.
        compile: compile the network, which takes a minute or so at the start and is faster then. Compiled and plain
            training differ by rounding; an interrupted one may go on either way.
        workers: threads that read images.
        on_message: called with a line about the disk that the checkpoint takes.

    Returns:
        ``out_folder``.

    Raises:
        ValueError: if the folder holds an E-LDM of another configuration, the batch size is not a multiple of the
            number of processes, an autoencoder is missing or superfluous, or the disk is too small for the latents or
            the checkpoint.
        FloatingPointError: if the loss is not finite; the message names the last checkpoint.
    """
    folder, root = Path(out_folder), Path(images_root)
    rank, world = rank_and_world_size(config.batch_size)
    if config.latents != (autoencoder is not None):
        expected, remedy = ("an", "give its folder") if config.latents else ("no", "leave it out, or set latents=True")
        raise ValueError(f"expected {expected} autoencoder for this configuration, got {autoencoder}; {remedy}")
    vae = Autoencoder.load(autoencoder, bf16=config.bf16, channels=embeddings.channels).to(device)
    pixels: dict[str, Any] = {"channels": embeddings.channels, "value_range": embeddings.encoder_value_range}
    if rank == 0:
        record = {"encoder_hash": embeddings.encoder_hash, "images": keys_hash(embeddings.keys)}
        record |= {**config_record(config), "autoencoder": vae.hash}
        if embeddings.channels != RGB:
            record |= {"image_channels": embeddings.channels, "value_range": _as_list(embeddings.encoder_value_range)}
        ensure_same_config(folder / CONFIG_FILE, record, holds="an E-LDM of another configuration")
    if (folder / "model_index.json").is_file():
        return folder
    if vae.lacks_statistics:
        measure_latents(vae, root, embeddings.keys, folder / "vae", config, workers, pixels)
    if config.latents and latents_cached:
        options = {"resolution": config.resolution, "flip": config.flip, "workers": workers, "on_progress": on_encoded}
        options["value_range"] = embeddings.encoder_value_range
        source: Source = cache_latents(root, embeddings.keys, folder / "latents", vae, **options)
    else:
        source = TrainingImages(root, embeddings.keys, config.resolution, workers=workers, **pixels)
    trainer = DiffusionTrainer(config, embeddings, vae, device, world, compile=compile)
    if rank == 0:
        size = STORED * sum(each.nbytes for each in trainer.denoiser.parameters())
        line = require_space(folder, size, "the checkpoint of the diffusion model, twice that while it is written")
        if on_message is not None:
            on_message(line)
    start = load_checkpoint(folder, trainer.optim)
    slices = rank_slices(config, len(embeddings), start, rank, world)
    batches = training_batches(source, embeddings, config, trainer.shape, slices, workers)
    train(trainer, batches, folder, start, is_main=rank == 0, on_step=on_step, checkpoint_seconds=checkpoint_seconds)
    if rank == 0:
        trainer.optim.ema.copy_to(trainer.denoiser)
        encoder = encoder_record(embeddings)
        save_model(folder, trainer.denoiser, trainer.noise_process, vae, encoder=encoder, resolution=config.resolution)
    if world > 1:
        dist.barrier()
    return folder


def measure_latents(
    vae: Autoencoder,
    root: Path,
    keys: Sequence[str],
    folder: Path,
    config: ELDMConfig,
    workers: int,
    pixels: dict[str, Any],
) -> None:
    """Give the autoencoder the statistics of its latents of some training images, stored in ``folder`` once for all."""
    rank, world = rank_and_world_size(config.batch_size)
    vae.load_statistics(folder)
    if rank == 0 and vae.lacks_statistics:
        order = EpochPermutation(len(keys), config.seed)
        rows = sorted(order(place) for place in range(min(STATISTICS_IMAGES, len(keys))))
        batches = [rows[start : start + STATISTICS_BATCH] for start in range(0, len(rows), STATISTICS_BATCH)]
        images = TrainingImages(root, keys, config.resolution, memory_bytes=0, **pixels)
        vae.measure(read_ahead(images, ((batch, [False] * len(batch)) for batch in batches), workers=workers))
        vae.save_statistics(folder)
    if world > 1:
        dist.barrier()
        vae.load_statistics(folder)


def training_batches(
    source: Source,
    embeddings: Embeddings,
    config: ELDMConfig,
    shape: tuple[int, int, int],
    slices: Iterator[RankSlice],
    workers: int,
) -> Iterator[Batch]:
    """Yield one process's slice of each batch: images or latents (some mirrored), embeddings and random numbers."""
    drawn = ((piece.rows, draw_noise(piece, config, shape)) for piece in slices)
    for_images, for_rest = itertools.tee(drawn)
    requests = ((rows, draws.flip.tolist()) for rows, draws in for_images)
    for images, (rows, draws) in zip(read_ahead(source, requests, workers=workers), for_rest, strict=True):
        yield images, torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), draws


def _as_list(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else list(values)


def config_record(config: ELDMConfig) -> dict:
    """Return what ``training.json`` stores of a configuration: what shapes its network, under the first names."""
    other = ONLY_UNET if config.network == "dit" else ONLY_DIT
    kept = {name: value for name, value in asdict(config).items() if name not in other}
    return {RECORD_NAMES.get(name, name): value for name, value in kept.items()}


def encoder_record(embeddings: Embeddings) -> dict:
    """Return what the model's folder records of the encoder."""
    return {
        "encoder_name": embeddings.encoder_name,
        "encoder_hash": embeddings.encoder_hash,
        "encoder_size": embeddings.encoder_size,
        "encoder_mean": list(embeddings.encoder_mean),
        "encoder_std": list(embeddings.encoder_std),
        **(
            {}
            if embeddings.encoder_value_range is None
            else {"encoder_value_range": list(embeddings.encoder_value_range)}
        ),
        "supervision": embeddings.supervision,
        "dim": embeddings.dim,
    }
