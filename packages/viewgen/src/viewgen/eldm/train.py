"""Train an embedding-conditioned diffusion model on a folder of images.

Shapes: B images of this process's part of a batch, R the resolution, C, h, w of an image's latents, D the embedding.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from viewgen.claim import claim
from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import Part, Source, TrainingImages, batch_parts, read_ahead
from viewgen.eldm.draws import draw
from viewgen.eldm.latents import cache_latents
from viewgen.eldm.learner import Batch, Learner
from viewgen.eldm.loop import OnStep, ranks, train
from viewgen.eldm.model import save_model
from viewgen.eldm.state import CLAIM_FILE, load_state
from viewgen.embed import Embeddings
from viewgen.hashing import keys_hash


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
        on_encoded: called with (images encoded, images to encode) of this process, before the training.
        device: where it runs.
        checkpoint_seconds: time between two saves of the state.
        autoencoder: folder of a diffusers AutoencoderKL or VQModel, where ``config.latents``.
        latents_cached: encode every image once and keep it in out_folder/latents (16 KiB for an image of 256 px and its
            mirror image; of no use once the training is done); otherwise every batch is encoded anew.
        workers: threads that read images.

    Returns:
        ``out_folder``.

    Raises:
        ValueError: if the folder holds an E-LDM of another configuration, the batch cannot be shared evenly, an
            autoencoder is missing or not wanted, or the disk is too small for the latents.
        FloatingPointError: if the loss is not finite, naming the last good state.
    """
    folder, root = Path(out_folder), Path(images_root)
    rank, world = ranks(config.batch_size)
    if config.latents != (autoencoder is not None):
        wish = "give the folder of one as autoencoder" if config.latents else "leave autoencoder out"
        raise ValueError(f"this configuration denoises {'latents' if config.latents else 'pixels'}: {wish}")
    coder = Autoencoder.load(autoencoder, bf16=config.bf16).to(device)
    if rank == 0:
        described = {"encoder_hash": embeddings.encoder_hash, "images": keys_hash(embeddings.keys)}
        described |= {**asdict(config), "autoencoder": coder.hash}
        claim(folder / CLAIM_FILE, described, holds="an E-LDM of another configuration")
    if (folder / "model_index.json").is_file():
        return folder
    if config.latents and latents_cached:
        options = {"resolution": config.resolution, "flip": config.flip, "workers": workers, "on_progress": on_encoded}
        source: Source = cache_latents(root, embeddings.keys, folder / "latents", coder, **options)
    else:
        source = TrainingImages(root, embeddings.keys, config.resolution, workers=workers)
    learner = Learner(config, embeddings, coder, device, world)
    start = load_state(folder, learner.weights)
    parts = batch_parts(config, len(embeddings), start, rank, world)
    batches = training_batches(source, embeddings, config, learner.shape, parts, workers)
    train(learner, batches, folder, start, leads=rank == 0, on_step=on_step, checkpoint_seconds=checkpoint_seconds)
    if rank == 0:
        learner.weights.average.copy_to(learner.denoiser)
        about = encoder_description(embeddings)
        save_model(folder, learner.denoiser, learner.noise_process, coder, encoder=about, resolution=config.resolution)
    if world > 1:
        dist.barrier()
    return folder


def training_batches(
    source: Source,
    embeddings: Embeddings,
    config: ELDMConfig,
    shape: tuple[int, int, int],
    parts: Iterator[Part],
    workers: int,
) -> Iterator[Batch]:
    """Images or latents (some mirrored), embeddings and draws of one process's part of each batch."""
    drawn = ((part.rows, draw(part, config, shape)) for part in parts)
    for_images, for_rest = itertools.tee(drawn)
    wanted = ((rows, draws.flip.tolist()) for rows, draws in for_images)
    for images, (rows, draws) in zip(read_ahead(source, wanted, workers=workers), for_rest, strict=True):
        yield images, torch.from_numpy(embeddings.vectors[rows].astype(np.float32)), draws


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
