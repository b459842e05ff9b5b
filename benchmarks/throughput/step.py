"""A whole training step (forward, backward, optimizer) of ours and of lightly's modules, on the same batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sslzoo
from lightly_methods import THEIRS
from sslzoo import methods
from timing import rates


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """Pairs per second of a training step, ResNet-18 with the CIFAR stem, beside lightly."""

    methods: tuple[str, ...] = tuple(THEIRS)
    batch_size: int = 128
    image_size: int = 32
    rounds: int = 10
    device: str = "cpu"


def measure_steps(options: StepBenchmark) -> list[tuple[str, ...]]:
    """One row a method and precision: ours, lightly's, the ratio in the same precision and to lightly's default."""
    images = torch.randn(2, options.batch_size, 3, options.image_size, options.image_size, device=options.device)
    rows = []
    for name in options.methods:
        work = {}
        for precision, bf16 in (("bf16", True), ("float32", False)):
            ours, theirs = Ours(OURS[name](backbone())), THEIRS[name](backbone())
            work[f"ours {precision}"] = trainer(ours, images, bf16=bf16, channels_last=True)
            work[f"lightly {precision}"] = trainer(theirs, images, bf16=bf16, channels_last=False)
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
    model = model.to(images.device, memory_format=layout)  # pyright: ignore[reportCallIssue]
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


def backbone() -> nn.Module:
    """ResNet-18 with the CIFAR stem, the same for both."""
    torch.manual_seed(0)
    return sslzoo.create_backbone("resnet18", cifar_stem=True)


OURS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "SimCLR": lambda encoder: methods.SimCLR(encoder, projector_layers=2, temperature=0.5),
    "MoCo v2": lambda encoder: methods.MoCoV2(encoder, queue_size=4096, shuffle=False),
    "SimSiam": methods.SimSiam,
    "BYOL": methods.BYOL,
    "SwAV": lambda encoder: methods.SwAV(encoder, prototypes=512),
    "VICReg": lambda encoder: methods.VICReg(encoder, expander=(2048, 2048, 2048)),
    "Barlow Twins": lambda encoder: methods.BarlowTwins(encoder, projector=(2048, 2048, 2048)),
    "DINO": lambda encoder: methods.DINO(encoder, out_dim=4096),
}
"""Heads as wide as published, or as recipes for CIFAR-10 have them."""
