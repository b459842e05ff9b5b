"""A whole training step (forward, backward, optimizer) of ours and of lightly's modules, on the same batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import MoCoProjectionHead, SimSiamPredictionHead, SimSiamProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

import sslzoo
from sslzoo.methods import MoCoV2, SimSiam
from timing import rates

Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """Pairs per second of a training step, ResNet-18 with the CIFAR stem, beside lightly."""

    batch_size: int = 128
    image_size: int = 32
    rounds: int = 10
    device: str = "cpu"


def measure_steps(options: StepBenchmark) -> list[tuple[str, ...]]:
    """One row a method and precision: ours, lightly's, the ratio in the same precision and to lightly's default."""
    images = torch.randn(2, options.batch_size, 3, options.image_size, options.image_size, device=options.device)
    rows = []
    for name, (ours, theirs) in {"SimSiam": (our_simsiam, their_simsiam), "MoCo v2": (our_moco, their_moco)}.items():
        work = {
            "ours bf16": trainer(ours(options.device), images, bf16=True, channels_last=True),
            "ours float32": trainer(ours(options.device), images, bf16=False, channels_last=True),
            "lightly bf16": trainer(theirs(options.device), images, bf16=True, channels_last=False),
            "lightly float32": trainer(theirs(options.device), images, bf16=False, channels_last=False),
        }
        measured = rates(work, items=options.batch_size, rounds=options.rounds)
        default = measured["lightly float32"]
        for precision in ("bf16", "float32"):
            mine, other = measured[f"ours {precision}"], measured[f"lightly {precision}"]
            cells = (f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.2f}x", f"{mine / default:.2f}x")
            rows.append((name, precision, *cells))
    return rows


def trainer(model: nn.Module, images: Tensor, *, bf16: bool, channels_last: bool) -> Callable[[], None]:
    """One training step of a model whose forward gives the loss of two views."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    first, second = (view.contiguous(memory_format=layout) for view in images)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            loss = model(first, second)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.after_step()  # pyright: ignore[reportCallIssue]

    return step


class Ours(nn.Module):
    """A method of sslzoo behind (first, second) -> loss."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        return self.method([first, second])["loss"]

    def after_step(self) -> None:
        """Momentum encoder and queue."""
        self.method.after_step(0.5)  # pyright: ignore[reportCallIssue]


def backbone(device: str) -> nn.Module:
    """ResNet-18 with the CIFAR stem, the same for both."""
    torch.manual_seed(0)
    return sslzoo.create_backbone("resnet18", cifar_stem=True).to(device)


def our_simsiam(device: str) -> nn.Module:
    """SimSiam, its projector 512-512-2048 as the official code makes it for a ResNet-18."""
    return Ours(SimSiam(backbone(device))).to(device)


def our_moco(device: str) -> nn.Module:
    """MoCo v2 with a queue of 4096."""
    return Ours(MoCoV2(backbone(device), queue_size=4096, shuffle=False)).to(device)


class TheirSimSiam(nn.Module):
    """SimSiam put together from lightly's modules, as in its documentation."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = SimSiamProjectionHead(512, 512, 2048)
        self.prediction = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetric loss of a batch of pairs."""
        z0, z1 = (self.projection(self.encoder(view)) for view in (first, second))
        p0, p1 = self.prediction(z0), self.prediction(z1)
        return 0.5 * (self.criterion(p0, z1.detach()) + self.criterion(p1, z0.detach()))

    def after_step(self) -> None:
        """Nothing moves between steps."""


class TheirMoCo(nn.Module):
    """MoCo v2 put together from lightly's modules, as in its documentation."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = MoCoProjectionHead(512, 512, 128)
        self.key_encoder, self.key_head = copy.deepcopy(encoder), copy.deepcopy(self.head)
        deactivate_requires_grad(self.key_encoder)
        deactivate_requires_grad(self.key_head)
        self.criterion = NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs: queries of the first view, keys of the second."""
        query = self.head(self.encoder(first))
        with torch.no_grad():
            key = self.key_head(self.key_encoder(second))
        return self.criterion(query, key)

    def after_step(self) -> None:
        """The momentum encoder follows."""
        update_momentum(self.encoder, self.key_encoder, m=0.99)
        update_momentum(self.head, self.key_head, m=0.99)


def their_simsiam(device: str) -> nn.Module:
    """The same sizes as `our_simsiam`."""
    return TheirSimSiam(backbone(device)).to(device)


def their_moco(device: str) -> nn.Module:
    """The same sizes as `our_moco`."""
    return TheirMoCo(backbone(device)).to(device)
