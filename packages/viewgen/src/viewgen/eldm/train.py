"""Train an embedding-conditioned diffusion model on a folder of images.

Shapes: B images of this process's part of a batch, R the resolution, D the embedding.
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import Draws, EpochOrder, TrainingImages, draw
from viewgen.eldm.learner import Learner
from viewgen.eldm.model import save_model
from viewgen.eldm.state import STATE_FILE, claim_folder, load_state, save_state
from viewgen.embed import Embeddings

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
    learner = Learner(config, embeddings, Autoencoder.load(autoencoder), device)
    start = load_state(folder, learner.denoiser, learner.average, learner.optimizer)
    network = DistributedDataParallel(learner.denoiser) if world > 1 else learner.denoiser
    batches = training_batches(Path(images_root), embeddings, config, learner.shape, start, rank, world, workers)
    saved = began = time.monotonic()
    for step, (pixels, vectors, draws) in enumerate(batches, start):
        loss = learner.loss(network, pixels, vectors, draws)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(_not_finite(folder, step, value))
        rate = learner.update(loss, step)
        if on_step is not None:
            speed = (step + 1 - start) * config.batch_size / (time.monotonic() - began)
            on_step(step + 1, config.steps, {"loss": value, "lr": rate, "images_per_second": speed})
        if rank == 0 and (time.monotonic() - saved >= checkpoint_seconds or step + 1 == config.steps):
            save_state(folder, step + 1, learner.denoiser, learner.average, learner.optimizer)
            saved = time.monotonic()
    if rank == 0:
        learner.average.copy_to(learner.denoiser)
        about = encoder_description(embeddings)
        save_model(
            folder,
            learner.denoiser,
            learner.noise_process,
            learner.autoencoder,
            encoder=about,
            resolution=config.resolution,
        )
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
