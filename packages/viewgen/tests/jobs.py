"""What the kill and rank tests run in processes of their own: ``python jobs.py JOB ROOT [RANK WORLD]``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import TINY

from genviews_core.distributed import destroy_process_group
from viewgen import Embeddings, eldm, generate_views
from viewgen.eldm.autoencoder_trainer import AutoencoderTrainer, autoencoder_batches, build_networks, save_autoencoder
from viewgen.eldm.data import TrainingImages, rank_slices
from viewgen.eldm.diffusion_trainer import DiffusionTrainer, training_batches
from viewgen.eldm.training import OnStep

TINY_CODER = eldm.AutoencoderConfig(
    resolution=16,
    channels=(8, 16),
    layers_per_block=1,
    norm_groups=4,
    adversarial_weight=0.5,
    adversarial_start=8,
    discriminator_channels=8,
    discriminator_layers=2,
    steps=20,
    batch_size=4,
    learning_rate=2e-3,
    warmup_steps=2,
    seed=3,
)
TINY_LATENTS = replace(TINY, latents=True, patch=1, steps=20)


def generate(root: Path) -> None:
    """Views of the images under ROOT by the E-LDM there."""
    generator = eldm.ELDMGenerator(root / "model", steps=3)
    embeddings = Embeddings.load(root / "embedded")
    generate_views(
        root / "images", root / "views", generator, embeddings=embeddings, views_per_image=3, batch_size=4, workers=2
    )


def train(root: Path) -> None:
    """An E-LDM of the images under ROOT, saving its state after every step."""
    eldm.train_eldm(
        root / "images",
        Embeddings.load(root / "embedded"),
        root / "eldm",
        replace(TINY, steps=40),
        checkpoint_seconds=0.0,
    )


def train_latents(root: Path, on_step: OnStep | None = None) -> None:
    """An autoencoder of the images under ROOT and an E-LDM of its latents, saving their states after every step."""
    coder = eldm.train_autoencoder(root / "images", root / "coder", TINY_CODER, checkpoint_seconds=0.0, on_step=on_step)
    embeddings = Embeddings.load(root / "embedded")
    options = {"autoencoder": coder, "checkpoint_seconds": 0.0, "on_step": on_step}
    eldm.train_eldm(root / "images", embeddings, root / "eldm", TINY_LATENTS, **options)


def save_untrained_coder(folder: Path) -> None:
    """An autoencoder that every process can start from."""
    folder.mkdir()
    save_autoencoder(folder, build_networks(TINY_CODER)[0], 2.0)


def share_work(root: Path, rank: int, world: int) -> None:
    """The first gradients of both trainers, and three steps of every training, by all ranks together."""
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=world)
    embeddings = Embeddings.load(root / "embedded")
    save_gradients(root, embeddings, rank, world)
    out = root / f"by-{world}"
    eldm.train_eldm(root / "images", embeddings, out / "pixels", replace(TINY, steps=3))
    eldm.train_autoencoder(root / "images", out / "coder", replace(TINY_CODER, steps=3, adversarial_start=1))
    config = replace(TINY_LATENTS, steps=3)
    eldm.train_eldm(root / "images", embeddings, out / "latents", config, autoencoder=root / "untrained")
    coder = eldm.Autoencoder.load(root / "untrained")
    eldm.cache_latents(root / "images", embeddings.keys, out / "cache", coder, resolution=16, shard_rows=4)
    if world > 1:
        destroy_process_group()


def save_gradients(root: Path, embeddings: Embeddings, rank: int, world: int) -> None:
    """Of the denoiser, the autoencoder and its discriminator."""
    images = TrainingImages(root / "images", embeddings.keys, 16)
    config = replace(TINY, batch_size=8)
    denoiser = DiffusionTrainer(config, embeddings, eldm.Autoencoder(None), "cpu", world)
    parts = rank_slices(config, 14, 0, rank, world)
    denoiser.loss(next(training_batches(images, embeddings, config, denoiser.shape, parts, 1)))[0].backward()
    config = replace(TINY_CODER, batch_size=8, adversarial_start=0)
    coder = AutoencoderTrainer(config, "cpu", world)
    coder.loss(next(autoencoder_batches(images, config, rank_slices(config, 14, 0, rank, world), 1)))[0].backward()
    modules = (denoiser.optim.module, coder.optim.module)
    if rank == 0:
        gradients = [{name: value.grad for name, value in module.named_parameters()} for module in modules]
        torch.save(gradients, root / f"gradients-{world}.pt")


JOBS = {"generate": generate, "train": train, "train_latents": train_latents, "share_work": share_work}

if __name__ == "__main__":
    torch.set_num_threads(1)
    job, root, *ranks = sys.argv[1:]
    JOBS[job](Path(root), *map(int, ranks))
