"""Seeded inputs and weights that the official code was given too, and small methods."""

import pytest
import torch
from torch import Tensor, nn

from sslzoo import apply_schedule, create_backbone
from sslzoo.methods import BYOL, DINO, BarlowTwins, GenDINO, Interpolated, MoCoV2, MoCoV3, SimCLR, SimSiam, SwAV, VICReg

SMALL_DINO = {"out_dim": 24, "hidden_dim": 16, "bottleneck_dim": 8, "freeze_fraction": 0.4}
SMALL_QUEUE = {"queue_size": 16, "queue_start": 0.2, "freeze_fraction": 0.2}


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


def small_method(name: str, backbone: nn.Module) -> nn.Module:
    if name == "simsiam":
        return SimSiam(backbone, projection_dim=16, prediction_dim=8)
    if name == "moco_v2":
        return MoCoV2(backbone, projection_dim=8, queue_size=20, momentum=0.9)
    if name == "moco_v2_symmetric":
        return MoCoV2(backbone, projection_dim=8, queue_size=20, momentum=0.9, symmetric=True)
    if name == "byol":
        return BYOL(backbone, projection_dim=8, hidden_dim=16, momentum=0.9)
    if name == "moco_v3":
        return MoCoV3(backbone, projection_dim=8, hidden_dim=16, temperature=0.2, momentum=0.9)
    if name == "swav":
        return SwAV(backbone, prototypes=12, projection_dim=8, hidden_dim=16, **SMALL_QUEUE)
    if name == "simclr":
        return SimCLR(backbone, projection_dim=8)
    if name == "vicreg":
        return VICReg(backbone, expander=(16, 8), invariance=1.0, variance=1.0, covariance=0.04)
    if name == "barlow_twins":
        return BarlowTwins(backbone, projector=(16, 8))
    return {"dino": DINO, "gen_dino": GenDINO}[name](backbone, **SMALL_DINO)


NAMES = [
    "simsiam",
    "moco_v2",
    "moco_v2_symmetric",
    "dino",
    "gen_dino",
    "byol",
    "moco_v3",
    "swav",
    "simclr",
    "vicreg",
    "barlow_twins",
]


@pytest.fixture
def seeded() -> type[Seeded]:
    return Seeded


@pytest.fixture(params=NAMES)
def method_name(request) -> str:
    return request.param


@pytest.fixture
def build():
    """build(name, seed, backbone) returns a small method whose random weights depend only on the seed."""

    def build(name: str, seed: int = 0, backbone: nn.Module | None = None):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return small_method(name, small_backbone() if backbone is None else backbone)

    return build


@pytest.fixture
def call():
    """call(method, step, weights): the method on the step's views, with all that it can take."""

    def call(method, step: int, weights: Tensor | None = None):
        views = Seeded.views(2, 16, 100 * step)
        if isinstance(method, DINO | SwAV):
            views += Seeded.views(2, 12, 100 * step + 10)
        if isinstance(method, GenDINO):
            return method(views, weights, Seeded.interpolated(100 * step + 20))
        return method(views, weights)

    return call


@pytest.fixture
def first_steps():
    """first_steps(method, optimizer, rates): one step at each rate on seeded views of 32 px, in float64.

    Gives the losses, the norms of the gradients, and what the norms of backbone and head are at last.
    """

    def norm(tensors) -> float:
        return torch.stack([tensor.detach().norm() for tensor in tensors if tensor is not None]).norm().item()

    def first_steps(method, optimizer, rates):
        losses, gradients = [], []
        for step, rate in enumerate(rates):
            apply_schedule(optimizer, rate)
            loss = method(Seeded.views(2, 32, 10 * step, dtype=torch.float64))["loss"]
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            gradients.append(norm(parameter.grad for parameter in method.parameters()))
            optimizer.step()
            method.after_step((step + 1) / len(rates))
        return losses, gradients, norm(method.backbone.parameters()), norm(trainable(method.encoder.head))

    def trainable(module):
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    return first_steps
