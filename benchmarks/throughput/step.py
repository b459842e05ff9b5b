"""Training step (forward, backward, optimizer) of sslzoo and of lightly's modules, on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import sslzoo
from benchmarks.throughput.lightly_baselines import BASELINES
from benchmarks.throughput.timing import rates
from sslzoo import methods

Backbone = Literal["resnet18", "resnet50", "vit_small"]
Precision = Literal["bf16", "float32"]


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """Training speed in pairs per second against lightly, with the same backbone and heads.

    Attributes:
        methods: methods to measure.
        backbone: ResNet-18 with the CIFAR stem, or, for 224 px, ResNet-50 or ViT-S/16.
        batch_size: number of pairs.
        image_size: size of the images in pixels.
        precisions: bf16 is autocast; float32 is lightly's default.
        compile: use torch.compile for the networks of both libraries.
        profile: after the rows of a method, print a profile of our step in the first precision.
        rounds: number of timed rounds.
        device: device of both.
    """

    methods: tuple[str, ...] = tuple(BASELINES)
    backbone: Backbone = "resnet18"
    batch_size: int = 128
    image_size: int = 32
    precisions: tuple[Precision, ...] = ("bf16", "float32")
    compile: bool = False
    profile: bool = False
    rounds: int = 10
    device: str = "cpu"


def measure_steps(options: StepBenchmark) -> Iterator[tuple[str, ...]]:
    """Yield a row per method and precision: pairs/s, speedups over lightly and its default, MFU, peak memory."""
    images = torch.randn(2, options.batch_size, 3, options.image_size, options.image_size, device=options.device)
    for name in options.methods:
        work, peaks = {}, {}
        for precision in options.precisions:
            for side, layout in (("ours", True), ("lightly", False)):
                before = _allocated(images.device)
                encoder = backbone(options.backbone, options.image_size)
                model = Ours(OURS[name](encoder)) if side == "ours" else BASELINES[name](encoder)
                if options.compile:
                    encoder.compile()
                key = f"{side} {precision}"
                work[key] = trainer(model, images, bf16=precision == "bf16", channels_last=layout)
                peaks[key] = _peak(work[key], images.device, before)
        flops = _flops(Ours(OURS[name](backbone(options.backbone, options.image_size))), images)
        measured = rates(work, items=options.batch_size, rounds=options.rounds)
        for precision in options.precisions:
            mine, other = measured[f"ours {precision}"], measured[f"lightly {precision}"]
            default = measured.get("lightly float32")
            cells = (f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.2f}x", f"{mine / default:.2f}x" if default else "")
            more = (_mfu(flops * mine / options.batch_size, images.device, precision), *_memory(peaks, precision))
            label = f"{precision}, compiled" if options.compile else precision
            yield (name, f"{options.backbone}, {options.image_size} px", label, *cells, *more)
        if options.profile:
            _print_profile(work[f"ours {options.precisions[0]}"], images.device)


def _print_profile(run: Callable[[], None], device: torch.device) -> None:
    """Profile three steps and print the operations with the longest self time."""
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    with profile(activities=kinds) as found:
        for _ in range(3):
            run()
    print(found.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=20, max_name_column_width=60))


def _flops(model: nn.Module, images: Tensor) -> int:
    """Count the FLOPs of forward and backward passes, on an eighth of the batch if it is divisible by 8."""
    parts = 8 if len(images[0]) % 8 == 0 and len(images[0]) > 8 else 1
    few = images[:, : len(images[0]) // parts]
    with FlopCounterMode(display=False) as counter:
        model.to(images.device)(*few).backward()
    return parts * counter.get_total_flops()


def _mfu(flops_per_second: float, device: torch.device, precision: Precision) -> str:
    """Return the model FLOPs utilization in bf16; empty if the peak of the device is unknown."""
    peak = sslzoo.peak_flops(device) if precision == "bf16" else None
    return f"{100 * flops_per_second / peak:.1f}%" if peak else ""


def _allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(run: Callable[[], None], device: torch.device, before: int) -> float | None:
    """Return the peak memory of a step in GB, with weights and optimizer, beyond the memory held before."""
    if device.type != "cuda":
        return None
    run()
    run()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9


def _memory(peaks: dict[str, float | None], precision: Precision) -> tuple[str, str]:
    ours, theirs = (peaks[f"{side} {precision}"] for side in ("ours", "lightly"))
    return tuple("" if peak is None else f"{peak:.2f}" for peak in (ours, theirs))  # pyright: ignore[reportReturnType]


def trainer(model: nn.Module, images: Tensor, *, bf16: bool, channels_last: bool) -> Callable[[], None]:
    """Return a function that runs one training step of a model whose forward returns the loss of two views."""
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
    """A method of sslzoo with the interface (first, second) -> loss."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of a batch of pairs."""
        return self.method([first, second])["loss"]

    def after_step(self) -> None:
        """Update momentum encoder and queue."""
        self.method.after_step(0.5)  # pyright: ignore[reportCallIssue]


def backbone(name: Backbone = "resnet18", image_size: int = 32) -> nn.Module:
    """Create the backbone used by both libraries."""
    torch.manual_seed(0)
    if name == "vit_small":
        return sslzoo.create_backbone("timm/vit_small_patch16_224", image_size=image_size)
    return sslzoo.create_backbone(name, cifar_stem=name == "resnet18")


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
"""Methods with heads of the published widths, or those of the recipes for CIFAR-10."""
