"""Denoising with classifier-free guidance, for batches in which every image has its own seed, condition and guidance.

Shapes: B images of a batch, C, h, w the channels and sides of what is denoised, P the channels of a prediction, C
or, with a variance, 2 C, H, W the sides of images in pixels.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

Conditions = Mapping[str, Tensor]  # by name, each with first axis B
Network = Callable[[Tensor, Tensor, Conditions], Tensor]  # (latents, timestep, conditions) -> prediction in float32


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """When guidance applies: the prediction is ``none + scale * (given - none)``.

    Attributes:
        interval: fractions of the noise process between which guidance applies (https://arxiv.org/abs/2404.07724);
            elsewhere only the conditioned half is evaluated.
        reuse: evaluate the unconditional half at every ``reuse``-th step; between, the last direction
            ``given - none`` is added again. 1 evaluates it at every step.
        stop: end the guidance of an image when the cosine between its two predictions reaches this value
            (https://arxiv.org/abs/2312.12487); 1 never ends it.
    """

    interval: tuple[float, float] = (0.0, 1.0)
    reuse: int = 1
    stop: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"expected guidance_interval (low, high) with 0 <= low < high <= 1, got {self.interval}")
        if self.reuse < 1:
            raise ValueError(f"expected guidance_reuse of 1 or more, got {self.reuse}")
        if not 0 < self.stop <= 1:
            raise ValueError(f"expected guidance_stop in (0, 1], got {self.stop}")

    def settings(self) -> dict[str, Any]:
        """Return what differs from plain guidance, for the manifest's settings."""
        named = {"guidance_interval": list(self.interval), "guidance_reuse": self.reuse, "guidance_stop": self.stop}
        plain = {"guidance_interval": [0.0, 1.0], "guidance_reuse": 1, "guidance_stop": 1.0}
        return {name: value for name, value in named.items() if value != plain[name]}


class GuidedNetwork:
    """A network with classifier-free guidance. Make one for each batch: it keeps state between steps.

    Args:
        network: evaluates a batch of latents at one timestep.
        given: the conditions of B images.
        none: the conditions that guidance leads away from; None evaluates the conditioned half alone.
        scale: guidance scale of each image; if all are 1, the unconditional half is never evaluated.
        guidance: when guidance applies.
        timesteps: number of timesteps of the noise process.
        channels: number of leading channels that are guided; the others, a predicted variance, are the conditioned
            half's. None guides all.
    """

    def __init__(
        self,
        network: Network,
        given: Conditions,
        none: Conditions | None,
        scale: Float[Tensor, " B"],
        guidance: Guidance,
        timesteps: int,
        channels: int | None = None,
    ) -> None:
        self.channels = channels
        self.network, self.given, self.none, self.guidance = network, given, none, guidance
        self.scale, self.timesteps = scale, timesteps
        self.active: Bool[Tensor, " B"] = scale != 1
        self.direction: Tensor | None = None
        self.step = 0

    def __call__(self, latents: Float[Tensor, "B C h w"], timestep: Tensor) -> Float[Tensor, "B P h w"]:
        """Return the guided predictions of the next step, at one timestep or at one per image."""
        fresh = self.step % self.guidance.reuse == 0
        self.step += 1
        low, high = self.guidance.interval
        fraction = (timestep.cpu().float() + 1) / self.timesteps
        guided = self.active & (low <= fraction) & (fraction <= high)
        if self.none is None or not bool(guided.any()):
            return self.network(latents, timestep, self.given)
        wide = (-1, *[1] * (latents.ndim - 1))
        scale = torch.where(guided, self.scale, 1.0).to(latents.device).view(wide)
        if not fresh and self.direction is not None:
            return self.network(latents, timestep, self.given) + (scale - 1) * self.direction
        given, none, rows = self._both(latents, timestep, guided)
        self.direction = torch.zeros_like(given)
        self.direction[rows] = given[rows] - none
        if self.channels is not None:
            self.direction[:, self.channels :] = 0
        if self.guidance.stop < 1:
            near = cosine_similarity(none.flatten(1), given[rows].flatten(1)) >= self.guidance.stop
            self.active[rows[near].cpu()] = False
        if len(rows) == len(latents) and self.channels is None:
            return none + scale * self.direction
        return given + (scale - 1) * self.direction

    def _both(
        self, latents: Float[Tensor, "B C h w"], timestep: Tensor, guided: Bool[Tensor, " B"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the guided images without their conditions and all images with them, in one batch."""
        assert self.none is not None
        rows = guided.nonzero().flatten().to(latents.device)
        some = len(rows) < len(latents)

        def picked(value: Tensor) -> Tensor:
            return value[rows.to(value.device)] if some else value

        both = {name: torch.cat([picked(self.none[name]), value]) for name, value in self.given.items()}
        timestep = torch.cat([picked(timestep), timestep]) if timestep.ndim else timestep
        halves = self.network(torch.cat([picked(latents), latents]), timestep, both)
        return halves[len(rows) :], halves[: len(rows)], rows


def initial_latents(
    shape: tuple[int, int, int], draws: Sequence[torch.Generator], device: torch.device
) -> Float[Tensor, "B C h w"]:
    """Draw standard normal latents on the CPU in float32, each image's from its own generator."""
    return torch.stack([torch.randn(shape, generator=draw) for draw in draws]).to(device)


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    latents: Float[Tensor, "B C h w"],
    draws: Sequence[torch.Generator],
    *,
    start: int = 0,
) -> Float[Tensor, "B C h w"]:
    """Denoise latents through the scheduler's timesteps.

    Args:
        predict: predicts what the scheduler expects from the scaled latents and the timestep, such as
            ``GuidedNetwork``.
        scheduler: diffusers scheduler with its timesteps set (on the CPU, so that no step waits for the device).
        latents: noise already scaled to the first timestep.
        draws: the generators from which stochastic schedulers draw each image's noise.
        start: index of the first timestep, as diffusers' image-to-image pipelines count.
    """
    accepted = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"generator": list(draws)} if "generator" in accepted else {}
    if "eta" in accepted:
        options["eta"] = 0.0  # as all of diffusers' pipelines do
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    for timestep in scheduler.timesteps[start:]:
        predicted = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(predicted, timestep, latents, **options, return_dict=False)[0]
    return latents


def decode_latents(
    vae: Any, latents: Float[Tensor, "B C h w"], *, half_overflows: bool = False
) -> Float[Tensor, "B 3 H W"]:
    """Decode to pixels in about [-1, 1]; images that overflow float16 in the decoder are repeated in float32.

    Args:
        vae: an autoencoder of diffusers.
        latents: scaled as the denoising network takes them.
        half_overflows: decode at once in float32 if the autoencoder is in float16, as SDXL's overflows always.
    """
    config, dtype = vae.config, vae.dtype
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        shift, spread = (torch.tensor(values, device=latents.device).view(1, -1, 1, 1) for values in (mean, std))
        latents = latents * spread / config.scaling_factor + shift
    else:
        latents = latents / config.scaling_factor
    broken = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
    pixels = None
    if dtype != torch.float16 or not half_overflows:
        pixels = vae.decode(latents.to(dtype), return_dict=False)[0].float()
        broken = ~pixels.isfinite().flatten(1).all(dim=1)
    if dtype != torch.float32 and bool(broken.any()):
        vae.float()
        repeated = vae.decode(latents[broken], return_dict=False)[0]
        vae.to(dtype)
        if pixels is None:
            return repeated
        pixels[broken] = repeated
    assert pixels is not None
    return pixels


def encode_latents(
    vae: Any, pixels: Float[Tensor, "B 3 H W"], *, half_overflows: bool = False
) -> Float[Tensor, "B 2 C h w"]:
    """Encode pixels in [-1, 1] to the mean and standard deviation of their latents, not yet scaled.

    Args:
        vae: an autoencoder of diffusers; one without a distribution has a deviation of zero.
        pixels: the images.
        half_overflows: encode in float32 if the autoencoder is in float16.
    """
    dtype = vae.dtype
    upcast = half_overflows and dtype == torch.float16
    if upcast:
        vae.float()
    encoded = vae.encode(pixels.to(vae.dtype))
    if upcast:
        vae.to(dtype)
    if hasattr(encoded, "latent_dist"):
        return torch.stack([encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()], dim=1)
    latents = encoded.latents.float()
    return torch.stack([latents, torch.zeros_like(latents)], dim=1)


def scale_latents(vae: Any, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Scale latents as the denoising network sees them; ``decode_latents`` scales back."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or std is None:
        return latents * vae.config.scaling_factor
    shift, spread = (torch.tensor(values, device=latents.device).view(1, -1, 1, 1) for values in (mean, std))
    return (latents - shift) * vae.config.scaling_factor / spread
