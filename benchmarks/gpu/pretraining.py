"""SimCLR pretraining on images and views in device memory.

Shapes: N images, B batch size, S side in pixels, D feature width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

import ssl_eval
import sslzoo
from benchmarks.gpu.cuda_graphs import LossAndGradients, prefetch
from benchmarks.gpu.images import DeviceLoader, Split
from pairdata import Augment, PairBatch
from sslzoo import schedules
from sslzoo.methods import SimCLR

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # CIFAR-10, from vturrisi/solo-learn@9187ea3
AHEAD = 16  # batches augmented together, to launch fewer kernels

OnEpoch = Callable[[int, nn.Module], bool]
"""Called with the number of finished epochs and the backbone; return True to stop."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SimCLR on CIFAR-10 for few epochs: lightly's benchmark with temperature 0.2 and without blur.

    SGD 0.06 per 128, weight decay 5e-4: lightly-ai/lightly@e8d317f
    docs/source/getting_started/benchmarks/cifar10_benchmark.py.

    Attributes:
        backbone: arguments of `sslzoo.create_backbone`.
        batch_size: B.
        rate: peak learning rate at batch size 128; scaled linearly with the batch size.
        weight_decay: weight decay of SGD.
        warmup_epochs: epochs of linear warmup.
        temperature: temperature of the loss.
        view_probability: probability that one of the two images of a pair is a synthetic view.
        half: use bfloat16 autocast.
        capture: run the step as a CUDA graph.
        compile: use torch.compile for backbone and head.
        size: S.
        probe_epochs: epochs of the linear probe that evaluates the encoder.
    """

    backbone: dict[str, Any] = field(default_factory=lambda: {"name": "resnet18", "cifar_stem": True})
    batch_size: int = 512
    rate: float = 0.06
    weight_decay: float = 5e-4
    warmup_epochs: float = 1.0
    temperature: float = 0.2
    view_probability: float = 1.0
    half: bool = True
    capture: bool = False
    compile: bool = False
    size: int = 32
    probe_epochs: int = 30

    @property
    def augment(self) -> Augment:
        """The augmentation of both views."""
        return Augment(size=self.size, blur_p=0.0, mean=MEAN, std=STD)


class Pretraining:
    """Training of one encoder.

    Args:
        train: training images on the device.
        recipe: training recipe.
        epochs: length of the schedule.
        seed: seed of weights, order and augmentations.
        views: a synthetic view of each image, or None.
    """

    def __init__(
        self, train: Split, recipe: Recipe, *, epochs: int, seed: int, views: UInt8[Tensor, "N 3 S S"] | None = None
    ) -> None:
        self.recipe, self.epochs, self.device = recipe, epochs, train.images.device
        torch.manual_seed(seed)
        backbone = sslzoo.create_backbone(**recipe.backbone)
        method = SimCLR(backbone, projector_layers=2, temperature=recipe.temperature)
        self.method = method.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if recipe.compile:
            self.method.encoder.backbone.compile()
            self.method.encoder.head.compile()
        self.batch = min(recipe.batch_size, len(train))
        self.steps = len(train) // self.batch
        chunk = self.batch * min(AHEAD, self.steps)
        own = None if views is None else views.unsqueeze(1)
        self.loader = DeviceLoader(train, batch_size=chunk, views=own, seed=seed)
        self.steps = len(self.loader) * (chunk // self.batch)
        self.generator = torch.Generator().manual_seed(seed)
        self.seconds, self.pairs_seen = 0.0, 0
        self.rate = recipe.rate * self.batch / 128
        self.optimizer = sslzoo.build_optimizer(
            "sgd", self.method, lr=self.rate, weight_decay=recipe.weight_decay, nesterov=True, fused=True
        )
        parameters = list(self.method.parameters())
        self.step = LossAndGradients(self._loss, parameters, capture=recipe.capture and self.device.type == "cuda")
        self.method.train()
        noise = torch.randn(self.batch, 3, recipe.size, recipe.size, device=self.device)
        noise = noise.contiguous(memory_format=torch.channels_last)
        self.step.prepare(noise, noise.flip(3))

    def run(self, on_epoch: OnEpoch | None = None, *, deadline: float | None = None) -> float:
        """Train to the end, and return the seconds of training without those of `on_epoch`.

        Args:
            on_epoch: called after each epoch.
            deadline: a value of time.monotonic() after which training is aborted.

        Raises:
            TimeoutError: training passed the deadline.
        """
        for epoch in range(self.epochs):
            started = self.now()
            self.train_epoch(epoch)
            self.seconds += self.now() - started
            self.pairs_seen += self.steps * self.batch
            if on_epoch is not None and on_epoch(epoch + 1, self.method.backbone):
                break
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"out of time after {epoch + 1} of {self.epochs} epochs")
        return self.seconds

    def train_epoch(self, epoch: int) -> Tensor:
        """Train one epoch, and return the loss of its last batch."""
        self.method.train()
        step, loss = epoch * self.steps, torch.zeros(())
        for first, second in prefetch(self._augmented(epoch), self.device):
            for views in zip(first.split(self.batch), second.split(self.batch), strict=True):
                self._schedule(step)
                loss = self.step(*views)
                self.optimizer.step()
                self.method.after_step((step + 1) / (self.epochs * self.steps))
                step += 1
        return loss

    def _augmented(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader.epoch(epoch):
            pair = self._pair(batch)
            sizes = batch.sizes[:, 0]
            yield tuple(  # pyright: ignore[reportReturnType]
                self.recipe.augment(images, sizes, self.generator).contiguous(memory_format=torch.channels_last)
                for images in pair
            )

    def _pair(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Return the real image and its view in random order (GenView's policy), or twice the real image."""
        real = batch.real
        if not batch.views.shape[1]:
            return real, real
        drawn = torch.rand(2, len(batch), generator=self.generator)
        synthetic, swap = (drawn[0] < self.recipe.view_probability), (drawn[1] < 0.5)
        synthetic, swap = (chosen.to(real.device)[:, None, None, None] for chosen in (synthetic, swap))
        other = torch.where(synthetic, batch.views[:, 0], real)
        return torch.where(swap, other, real), torch.where(swap, real, other)

    def _loss(self, first: Float[Tensor, "B 3 S S"], second: Float[Tensor, "B 3 S S"]) -> Float[Tensor, ""]:
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.half, cache_enabled=False)
        with half:
            return self.method([first, second])["loss"]

    def _schedule(self, step: int) -> None:
        warmup = int(self.recipe.warmup_epochs * self.steps) if self.epochs > self.recipe.warmup_epochs else 0
        lr = schedules.warmup_cosine(step, self.epochs * self.steps, peak=self.rate, warmup_steps=warmup)
        sslzoo.apply_schedule(self.optimizer, lr)

    def now(self) -> float:
        """Return the time in seconds after synchronizing with the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@torch.no_grad()
def features_of(backbone: nn.Module, split: Split, *, half: bool = False, batch: int = 2048) -> ssl_eval.Features:
    """Compute the features of all images, without augmentation, on their device."""
    backbone.eval()
    device, found = split.images.device, []
    mean, std = (torch.tensor(triple, device=device).view(3, 1, 1) for triple in (MEAN, STD))
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        for images in split.images.split(batch):
            values = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            found.append(backbone(values).float())
    return ssl_eval.Features(torch.cat(found), split.labels)


def accuracies(
    backbone: nn.Module, train: Split, test: Split, recipe: Recipe, *, linear: bool = True
) -> dict[str, float]:
    """Compute the top-1 test accuracy of kNN (k = 20) and of a linear probe, in percent."""
    known, asked = (features_of(backbone, split, half=recipe.half) for split in (train, test))
    k = min(20, len(train))
    found = {"knn": ssl_eval.knn_accuracy(known, asked, k=k)[k]}
    if linear:
        found["linear"] = ssl_eval.linear_probe(known, asked, epochs=recipe.probe_epochs, batch_size=1024).accuracy
    return found
