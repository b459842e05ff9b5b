"""Train the autoencoder of a latent diffusion model on a folder of images, with nothing from elsewhere.

Shapes: B images of this process's part of a batch, R the resolution in pixels.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from genviews_core.files import writing
from viewgen.claim import claim
from viewgen.eldm.autoencoder import to_pixels
from viewgen.eldm.coder_learner import CoderBatch, CoderLearner
from viewgen.eldm.config import AutoencoderConfig
from viewgen.eldm.data import EpochOrder, Part, TrainingImages, batch_parts, draw_images, read_ahead
from viewgen.eldm.loop import OnStep, ranks, train
from viewgen.eldm.model import save_diffusers
from viewgen.eldm.state import CLAIM_FILE, load_state
from viewgen.hashing import keys_hash
from viewgen.images import list_images

SCALE_IMAGES = 2048  # whose latents the scaling factor is measured on
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
) -> Path:
    """Learn to shrink images to latents and back; go on where an interrupted call stopped.

    Under torch.distributed every process calls this and takes its part of each batch; the first writes the files.

    Args:
        images_root: the images; no labels are read.
        out_folder: becomes the folder of a diffusers AutoencoderKL with the averaged weights, its ``scaling_factor``
            one over the standard deviation of the latents. A finished one is not trained again.
        config: of network and training.
        keys: which images, for example ``Embeddings.keys``; without them all under ``images_root``.
        on_step: called with (steps made, steps in all, {"loss", "l1", "kl", "lr", "images_per_second"}) and
            "discriminator", the hinge loss, once it has begun.
        device: where it runs.
        checkpoint_seconds: time between two saves of the state.
        workers: threads that read images.

    Returns:
        ``out_folder``.

    Raises:
        ValueError: if the folder holds an autoencoder of another configuration, the batch cannot be shared evenly, or
            an image cannot be read.
        FloatingPointError: if the loss is not finite, naming the last good state.
    """
    folder, rank_world = Path(out_folder), ranks(config.batch_size)
    leads = rank_world[0] == 0
    keys = list_images(images_root) if keys is None else keys
    if leads:
        described = {**asdict(config), "images": keys_hash(keys)}
        claim(folder / CLAIM_FILE, described, holds="an autoencoder of another configuration")
    if (folder / "config.json").is_file():
        return folder
    images = TrainingImages(Path(images_root), keys, config.resolution, workers=workers)
    learner = CoderLearner(config, device, rank_world[1])
    start = load_state(folder, learner.weights)
    batches = coder_batches(images, config, batch_parts(config, len(keys), start, *rank_world), workers)
    train(learner, batches, folder, start, leads=leads, on_step=on_step, checkpoint_seconds=checkpoint_seconds)
    if leads:
        learner.weights.average.copy_to(learner.coder)
        order = EpochOrder(len(keys), config.seed)
        rows = sorted(order(place) for place in range(min(SCALE_IMAGES, len(keys))))
        scale = 1 / latent_deviation(learner.coder.eval(), images, rows, learner.device, workers)
        save_autoencoder(folder, learner.coder, scale)
    if rank_world[1] > 1:
        dist.barrier()
    return folder


def coder_batches(
    images: TrainingImages, config: AutoencoderConfig, parts: Iterator[Part], workers: int
) -> Iterator[CoderBatch]:
    """One process's part of each batch."""
    drawn = ((part, *draw_images(part, config.seed, config.latent_shape)) for part in parts)
    for_images, for_rest = itertools.tee(drawn)
    wanted = ((part.rows, ((uniform[:, 0] < 0.5) & config.flip).tolist()) for part, uniform, _ in for_images)
    for pixels, (part, _, noise) in zip(read_ahead(images, wanted, workers=workers), for_rest, strict=True):
        yield CoderBatch(step=part.step, images=pixels, noise=noise)


@torch.no_grad()
def latent_deviation(coder: Any, images: TrainingImages, rows: list[int], device: torch.device, workers: int) -> float:
    """The standard deviation of these images' latents, the modes (https://arxiv.org/abs/2112.10752, appendix G)."""
    batches = [rows[start : start + SCALE_BATCH] for start in range(0, len(rows), SCALE_BATCH)]
    wanted = ((batch, [False] * len(batch)) for batch in batches)
    sums, count = torch.zeros(2, dtype=torch.float64), 0
    for pixels in read_ahead(images, wanted, workers=workers):
        modes = coder.encode(to_pixels(pixels.to(device))).latent_dist.mode().double()
        sums += torch.stack([modes.sum(), modes.square().sum()]).cpu()
        count += modes.numel()
    first, second = (sums / count).tolist()
    return (second - first**2) ** 0.5


def save_autoencoder(folder: Path, coder: Any, scale: float) -> None:
    """Write a diffusers folder; ``config.json`` is written last and marks it as complete."""
    coder.register_to_config(scaling_factor=scale)
    with writing(folder):
        save_diffusers(coder, folder / "unfinished")
        for name in ("diffusion_pytorch_model.safetensors", "config.json"):
            (folder / "unfinished" / name).replace(folder / name)
        (folder / "unfinished").rmdir()
