"""An embedding-conditioned diffusion model (E-LDM) trained on images in device memory for a given time, then sampled.

Network, loss and sampler come from `viewgen.eldm`. Random numbers are drawn on the device for a whole batch, where
viewgen seeds every image on the CPU.

Shapes: N images, B batch size, D embedding dimension, S side in pixels.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.gpu.cuda_graphs import LossAndGradients
from benchmarks.gpu.images import Split
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import NoiseDraws
from viewgen.eldm.diffusion_trainer import denoising_loss
from viewgen.eldm.model import Denoiser, build_denoiser, build_scheduler
from viewgen.eldm.presets import preset
from viewgen.eldm.sampling import make_sampler, sample
from viewgen.eldm.training import OptimState

COOLDOWN = 0.3  # fraction of the time over which the learning rate decays to 0


def real_config() -> ELDMConfig:
    """Return the preset "32" with fewer channels and a patch size of 2.

    It has 6 million parameters instead of 50 and 7% of the FLOPs: it trains on millions of images within minutes on one
    GPU, and takes 13 MB in half precision.
    """
    return replace(
        preset("32"),
        patch=2,
        channels=(128, 128),
        attention=(False, True),
        layers_per_block=1,
        batch_size=512,
        learning_rate=5e-4,
        warmup_steps=200,
        ema_decay=0.999,
    )


def tiny_config() -> ELDMConfig:
    """Return a tiny configuration for tests on a CPU."""
    return replace(
        preset("32-small"), channels=(16, 16), head_dim=16, norm_groups=8, cross_dim=16, batch_size=8, bf16=False
    )


class DeviceELDM:
    """An E-LDM with its EMA weights and optimizer, trained on images in device memory.

    Args:
        config: configuration of network and training.
        train: training images on the device.
        embeddings: embeddings of the training images.
        capture: run the training step as a CUDA graph.
        seed: seed of the random draws.
    """

    def __init__(
        self, config: ELDMConfig, train: Split, embeddings: Float[Tensor, "N D"], *, capture: bool, seed: int = 0
    ) -> None:
        self.config, self.train, self.device = config, train, train.images.device
        self.embeddings = embeddings.to(self.device)
        denoiser = build_denoiser(config, embeddings.shape[1], 3, config.resolution)
        fit(denoiser, self.embeddings)
        self.denoiser = denoiser.to(self.device).to(memory_format=torch.channels_last).train()
        self.noise_process: Any = build_scheduler(config)
        self.optim = OptimState(self.denoiser, config)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.steps, self.batch = 0, min(config.batch_size, len(train))
        capture = capture and self.device.type == "cuda"
        self.step = LossAndGradients(self._loss, list(self.denoiser.parameters()), capture=capture)

    @property
    def images_seen(self) -> int:
        """Number of images processed by all training steps so far."""
        return self.steps * self.batch

    def learn(self, seconds: float, *, most: int | None = None) -> dict[str, float]:
        """Train for `seconds` or at most `most` steps, and return loss, steps and speed.

        The learning rate warms up, stays constant and decays over the last part of the time. A later call continues.
        """
        began, first, loss = time.monotonic(), self.steps, torch.zeros(())
        self.denoiser.train()
        while (past := time.monotonic() - began) < seconds and (most is None or self.steps - first < most):
            share = past / seconds if most is None else (self.steps - first) / most
            loss = self._update(self._rate(self.steps - first, share))
            if self.steps % 16 == 0:  # synchronize, so that the clock reflects the device's progress
                loss.item()
        made = self.steps - first
        return {
            "loss": float(loss),
            "steps": made,
            "images": float(self.images_seen),
            "images_per_second": made * self.batch / (time.monotonic() - began),
        }

    def _rate(self, step: int, share: float) -> float:
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        return self.config.learning_rate * warm * min(1.0, (1 - share) / COOLDOWN)

    def _update(self, rate: float) -> Tensor:
        for group in self.optim.optimizer.param_groups:
            group["lr"] = rate
        loss = self.step(*self._batch())
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.config.grad_clip)
        self.optim.optimizer.step()
        self.optim.ema.update(self.denoiser, self.steps)
        self.steps += 1
        return loss

    def _batch(self) -> tuple[Tensor, ...]:
        """Return clean images, embeddings, condition-keep mask, stratified timesteps and noise."""
        draw = {"generator": self.generator, "device": self.device}
        rows = torch.randint(len(self.train), (self.batch,), **draw)
        clean = self.train.images[rows].float() / 127.5 - 1
        uniform = torch.rand(2, self.batch, **draw)
        clean = torch.where((uniform[0] < 0.5)[:, None, None, None], clean.flip(3), clean)
        keep = uniform[1] >= self.config.condition_dropout
        spread = (torch.arange(self.batch, device=self.device) / self.batch + torch.rand((), **draw)) % 1
        if self.config.timestep_sampling == "logit_normal":
            spread = torch.special.ndtri(spread.clamp(1e-6, 1 - 1e-6)).sigmoid()
        timestep = (spread * self.config.timesteps).long().clamp_max(self.config.timesteps - 1)
        return clean, self.embeddings[rows], keep, timestep, torch.randn(clean.shape, **draw)

    def _loss(self, clean: Tensor, embeddings: Tensor, keep: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        draws = NoiseDraws(flip=keep, keep=keep, timestep=timestep, noise=noise)  # flips are already applied
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16, cache_enabled=False)
        with half:
            network = self.denoiser
            return denoising_loss(network, network.condition, self.noise_process, clean, embeddings, draws)

    def state(self) -> dict[str, Tensor]:
        """Return the EMA weights and the embedding statistics."""
        return {**self.denoiser.state_dict(), **self.optim.ema.values, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state`, in any precision."""
        self.steps = int(state.pop("steps"))
        self.denoiser.load_state_dict(state)
        self.optim.ema.load(dict(self.denoiser.named_parameters()))

    @torch.no_grad()
    def generate(
        self, embeddings: Float[Tensor, "N D"], *, steps: int, guidance: float, seed: int, batch: int = 2048
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Generate a view for each embedding with the EMA weights."""
        network = self._averaged()
        draw = torch.Generator(self.device).manual_seed(seed)
        side, made = self.config.resolution, []
        for some in embeddings.to(self.device).split(batch):
            noise = torch.randn(len(some), 3, side, side, generator=draw, device=self.device)
            standardized = network.condition.standardize(some)
            scheduler = make_sampler(self.noise_process, "dpm")
            values = sample(network, scheduler, standardized, noise, steps=steps, guidance=guidance, clip=True)
            made.append(((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        return torch.cat(made)

    def _averaged(self) -> Denoiser:
        network = build_denoiser(self.config, self.embeddings.shape[1], 3, self.config.resolution)
        network.load_state_dict(self.denoiser.state_dict())
        network = network.to(self.device)
        self.optim.ema.copy_to(network)
        if self.config.bf16:
            network.network.to(torch.bfloat16)
            network.condition.token.to(torch.bfloat16)
        return network.to(memory_format=torch.channels_last).eval()


@torch.no_grad()
def fit(denoiser: Denoiser, embeddings: Float[Tensor, "N D"]) -> None:
    """Set mean and std of the normalized embeddings as `viewgen.eldm.diffusion_trainer.fit_condition` does."""
    vectors = normalize(embeddings.double(), dim=1)
    std = vectors.std(0, correction=0)
    denoiser.condition.mean.copy_(vectors.mean(0))
    denoiser.condition.std.copy_(std.clamp_min(1e-3 * std.mean().clamp_min(1e-6)))
