"""Seeded inputs and weights that the official code was given too, and small methods."""

import pytest
import torch
from torch import Tensor, nn

from sslzoo import create_backbone
from sslzoo.methods import DINO, GenDINO, Interpolated, MoCoV2, SimSiam

SMALL_DINO = {"out_dim": 24, "hidden_dim": 16, "bottleneck_dim": 8, "frozen_share": 0.4}


class Seeded:
    """Draws that depend on nothing but a number."""

    @staticmethod
    def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    @staticmethod
    def fill(module: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        """Parameter i from seed 1000 + i: matrices 0.05 n, vectors 1 + 0.1 n."""
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for i, parameter in enumerate(trainable):
            noise = Seeded.normal(1000 + i, *parameter.shape, dtype=dtype)
            parameter.data.copy_(noise * 0.05 if parameter.ndim > 1 else 1 + 0.1 * noise)

    @staticmethod
    def views(count: int, size: int, seed: int, batch: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [Seeded.normal(seed + i, batch, 3, size, size, dtype=dtype) for i in range(count)]

    @staticmethod
    def interpolated(seed: int, size: int = 16, batch: int = 8) -> Interpolated:
        view, partner = Seeded.views(2, size, seed, batch)
        return Interpolated(
            view=view, partner=partner, alpha=torch.linspace(0, 1, batch), exists=torch.arange(batch) % 3 != 0
        )


def small_backbone() -> nn.Module:
    return create_backbone("resnet10", cifar_stem=True, width=4)


def small_method(name: str) -> nn.Module:
    backbone = small_backbone()
    if name == "simsiam":
        return SimSiam(backbone, projection_dim=16, prediction_dim=8)
    if name == "moco_v2":
        return MoCoV2(backbone, projection_dim=8, queue_size=20, momentum=0.9)
    if name == "moco_v2_symmetric":
        return MoCoV2(backbone, projection_dim=8, queue_size=20, momentum=0.9, symmetric=True)
    return {"dino": DINO, "gen_dino": GenDINO}[name](backbone, **SMALL_DINO)


NAMES = ["simsiam", "moco_v2", "moco_v2_symmetric", "dino", "gen_dino"]


@pytest.fixture
def seeded() -> type[Seeded]:
    return Seeded


@pytest.fixture(params=NAMES)
def method_name(request) -> str:
    return request.param


@pytest.fixture
def build():
    """build(name, seed): a small method whose random weights depend on the seed alone."""

    def build(name: str, seed: int = 0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return small_method(name)

    return build


@pytest.fixture
def call():
    """call(method, step, weights): the method on the step's views, with all that it can take."""

    def call(method, step: int, weights: Tensor | None = None):
        views = Seeded.views(2, 16, 100 * step)
        if isinstance(method, DINO):
            views += Seeded.views(2, 12, 100 * step + 10)
        if isinstance(method, GenDINO):
            return method(views, weights, Seeded.interpolated(100 * step + 20))
        return method(views, weights)

    return call
