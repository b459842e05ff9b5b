"""What the kill and rank tests run in processes of their own: ``python jobs.py JOB ROOT [RANK WORLD]``."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import TINY
from torch.nn.parallel import DistributedDataParallel

from viewgen import Embeddings, eldm, generate_views
from viewgen.eldm.data import draw
from viewgen.eldm.learner import denoising_loss
from viewgen.eldm.model import build_scheduler


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


def gradients(root: Path, rank: int, world: int) -> None:
    """Save the first step's gradients, and a model trained for three steps by all ranks together."""
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=world)
    embeddings = Embeddings.load(root / "embedded")
    denoiser = eldm.build_denoiser(TINY, embeddings.dim, 3, 16)
    network = DistributedDataParallel(denoiser) if world > 1 else denoiser
    share = 8 // world
    places = range(rank * share, (rank + 1) * share)
    draws = draw(
        places,
        seed=0,
        step=0,
        batch_size=8,
        shape=(3, 16, 16),
        timesteps=1000,
        timestep_law="uniform",
        flip=True,
        dropout=0.2,
    )
    clean = torch.stack([torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in places])
    vectors = torch.from_numpy(embeddings.vectors[list(places)].astype("float32"))
    denoising_loss(network, denoiser.condition, build_scheduler(TINY), clean, vectors, draws).backward()
    if rank == 0:
        torch.save({name: value.grad for name, value in denoiser.named_parameters()}, root / f"gradients-{world}.pt")
    eldm.train_eldm(root / "images", embeddings, root / f"eldm-{world}", replace(TINY, steps=3))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    job, root, *ranks = sys.argv[1:]
    {"generate": generate, "train": train, "gradients": gradients}[job](Path(root), *map(int, ranks))
