"""Train an embedding-conditioned diffusion model on a folder of images.

Shapes: B images of this process's part of a batch, R the resolution, C, H, W the channels and
sides of what is denoised, D the embedding.
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import Draws, EpochOrder, TrainingImages, draw
from viewgen.eldm.model import Condition, build_denoiser, build_scheduler, save_model
from viewgen.eldm.state import STATE_FILE, Average, claim_folder, load_state, save_state
from viewgen.embed import Embeddings

SMALLEST_SIGMA = 0.1  # bounds the weight of nearly clean images
OnStep = Callable[[int, int, dict[str, float]], None]


def train_eldm(
    images_root: str | os.PathLike[str],
    embeddings: Embeddings,
    out_folder: str | os.PathLike[str],
    config: ELDMConfig,
    *,
    on_step: OnStep | None = None,
    device: str | torch.device = "cpu",
    checkpoint_seconds: float = 60.0,
    autoencoder: str | os.PathLike[str] | None = None,
    workers: int = 4,
) -> Path:
    """Learn to paint each image from its embedding; go on where an interrupted call stopped.

    Under torch.distributed every process calls this and takes its part of each batch; the first writes the files.

    Args:
        images_root: the images that were embedded.
        embeddings: theirs; their encoder is named in the model's folder.
        out_folder: where the model goes. A finished model there is not trained again.
        config: of network, noise and training.
        on_step: called with (steps made, steps in all, {"loss", "lr", "images_per_second"}).
        device: where it runs.
        checkpoint_seconds: time between two saves of the state.
        autoencoder: folder of a diffusers AutoencoderKL or VQModel; without it the model works on pixels.
        workers: threads that read images.

    Returns:
        ``out_folder``.

    Raises:
        ValueError: if the folder holds an E-LDM of another configuration, or the batch cannot be shared evenly.
        FloatingPointError: if the loss is not finite, naming the last good state.
    """
    folder = Path(out_folder)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if config.batch_size % world:
        raise ValueError(f"batch_size {config.batch_size} must be a multiple of the {world} processes")
    if rank == 0:
        claim_folder(folder, config, embeddings, None if autoencoder is None else Path(autoencoder))
    if (folder / "model_index.json").is_file():
        return folder
    latents = Autoencoder.load(autoencoder).to(device)
    shape = latents.latent_shape(config.resolution)
    denoiser = build_denoiser(config, embeddings.dim, shape[0], shape[1])
    fit_condition(denoiser.condition, embeddings, config.seed)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    denoiser = denoiser.to(device).to(memory_format=layout).train()
    average = Average(denoiser, config.ema_decay)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(),
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    noise_process = build_scheduler(config)
    start = load_state(folder, denoiser, average, optimizer)
    parallel = DistributedDataParallel(denoiser) if world > 1 else denoiser
    batches = training_batches(Path(images_root), embeddings, config, shape, start, rank, world, workers)
    saved = began = time.monotonic()
    for step, (pixels, vectors, draws) in enumerate(batches, start):
        clean = latents.encode(pixels.to(device))
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bf16):
            loss = denoising_loss(parallel, denoiser.condition, noise_process, clean, vectors.to(device), draws)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(_not_finite(folder, step, value))
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update(denoiser, step)
        if on_step is not None:
            speed = (step + 1 - start) * config.batch_size / (time.monotonic() - began)
            on_step(step + 1, config.steps, {"loss": value, "lr": rate, "images_per_second": speed})
        if rank == 0 and (time.monotonic() - saved >= checkpoint_seconds or step + 1 == config.steps):
            save_state(folder, step + 1, denoiser, average, optimizer)
            saved = time.monotonic()
    if rank == 0:
        average.copy_to(denoiser)
        about = encoder_description(embeddings)
        save_model(folder, denoiser, noise_process, latents, encoder=about, resolution=config.resolution)
    if world > 1:
        dist.barrier()
    return folder


def training_batches(
    images_root: Path,
    embeddings: Embeddings,
    config: ELDMConfig,
    shape: tuple[int, int, int],
    start: int,
    rank: int,
    world: int,
    workers: int,
) -> Iterator[tuple[UInt8[Tensor, "B 3 R R"], Float[Tensor, "B D"], Draws]]:
    """Images (some mirrored), embeddings and draws of one process's part of each batch, from step ``start`` on."""
    images = TrainingImages(images_root, embeddings.keys, config.resolution, workers=workers)
    order = EpochOrder(len(embeddings), config.seed)
    share = config.batch_size // world
    places = range(rank * share, (rank + 1) * share)
    wanted = ([order(step * config.batch_size + place) for place in places] for step in range(start, config.steps))
    for_images, for_vectors = itertools.tee(wanted)
    for step, pixels, rows in zip(range(start, config.steps), images.batches(for_images), for_vectors, strict=True):
        draws = draw(
            places,
            seed=config.seed,
            step=step,
            batch_size=config.batch_size,
            shape=shape,
            timesteps=config.timesteps,
            timestep_law=config.timestep_law,
            flip=config.flip,
            dropout=config.condition_dropout,
        )
        pixels = torch.where(draws.flip[:, None, None, None], pixels.flip(3), pixels)
        yield pixels, torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), draws


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


def learning_rate(config: ELDMConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to ``final_learning_rate`` of the peak."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / config.steps)) / 2
    return config.learning_rate * warm * (config.final_learning_rate + (1 - config.final_learning_rate) * cosine)


def fit_condition(condition: Condition, embeddings: Embeddings, seed: int, most: int = 10_000) -> None:
    """Set the mean and standard deviation from (at most ``most``) normalised embeddings."""
    order = EpochOrder(len(embeddings), seed)
    rows = sorted(order(place) for place in range(min(most, len(embeddings))))
    vectors = nn.functional.normalize(torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), dim=1).double()
    std = vectors.std(dim=0, unbiased=False)
    condition.mean.copy_(vectors.mean(dim=0))
    condition.std.copy_(std.clamp_min(1e-3 * std.mean().clamp_min(1e-6)))


def encoder_description(embeddings: Embeddings) -> dict:
    """What the model's folder says of the encoder."""
    return {
        "encoder_name": embeddings.encoder_name,
        "encoder_hash": embeddings.encoder_hash,
        "encoder_size": embeddings.encoder_size,
        "encoder_mean": list(embeddings.encoder_mean),
        "encoder_std": list(embeddings.encoder_std),
        "supervision": embeddings.supervision,
        "dim": embeddings.dim,
    }


def _not_finite(folder: Path, step: int, value: float) -> str:
    good = folder / STATE_FILE
    state = f"the last good state is {good}" if good.is_file() else "no state was saved yet"
    return f"the loss became {value} at step {step + 1}; {state}. Train again with a lower learning_rate or bf16=False"
