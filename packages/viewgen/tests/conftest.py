"""A small folder of images, a small encoder and a small E-LDM trained for a few steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from viewgen import Embeddings, ImageEncoder, eldm, embed_images

TINY = eldm.ELDMConfig(
    resolution=16,
    patch=2,
    channels=(16, 32),
    attention=(False, True),
    layers_per_block=1,
    head_dim=8,
    cross_dim=16,
    norm_groups=8,
    add_to_time_embedding=True,
    prediction="v_prediction",
    beta_schedule="squaredcos_cap_v2",
    steps=6,
    batch_size=4,
    learning_rate=2e-3,
    warmup_steps=2,
    seed=3,
)


def make_encoder() -> nn.Module:
    """Fixed random weights; its embedding knows an image's colours."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 12))


def write_images(root: Path, count: int, side: int = 16) -> None:
    """Smooth coloured images in two folders."""
    draws = np.random.default_rng(0)
    for index in range(count):
        folder = root / ("even" if index % 2 == 0 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(folder / f"{index:03d}.png")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "images"
    write_images(root, 14)
    return root


@pytest.fixture(scope="session")
def embeddings(images, tmp_path_factory) -> Embeddings:
    encoder = ImageEncoder(make_encoder(), size=16, name="tiny")
    return embed_images(images, tmp_path_factory.mktemp("embedded"), encoder, batch_size=5)


@pytest.fixture(scope="session")
def trained(images, embeddings, tmp_path_factory) -> Path:
    return eldm.train_eldm(images, embeddings, tmp_path_factory.mktemp("trained"), replace(TINY, steps=400, flip=False))


@pytest.fixture(name="make_encoder")
def make_encoder_fixture():
    return make_encoder


@pytest.fixture(name="write_images")
def write_images_fixture():
    return write_images


@pytest.fixture
def tiny_encoder() -> nn.Module:
    return make_encoder()


@pytest.fixture
def wrapped(tiny_encoder) -> ImageEncoder:
    return ImageEncoder(tiny_encoder, size=16, name="tiny")


@pytest.fixture
def tiny_config() -> eldm.ELDMConfig:
    return TINY
