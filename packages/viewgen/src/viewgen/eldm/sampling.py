"""From conditions and seeds to images: deterministic samplers with classifier-free guidance.

Shapes: B images of a batch, C, H, W the channels and sides of what is denoised, D the embedding's length.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viewgen.eldm.model import Denoiser

Sampler = Literal["dpm", "ddim"]
Interval = tuple[float, float]
WHOLE: Interval = (0.0, 1.0)
SHARED = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type", "timestep_spacing")


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Float[Tensor, "B C H W"]:
    """Standard normal noise, each image's from its own seed, on the CPU in float32."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def make_sampler(noise_process: DDPMScheduler, sampler: Sampler) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A deterministic sampler of the noise process the model was trained with.

    Args:
        noise_process: from the model's folder.
        sampler: "ddim" (https://arxiv.org/abs/2010.02502, eta = 0) or "dpm" (DPM-Solver++ of second order,
            https://arxiv.org/abs/2211.01095). Neither clips: see ``sample``.
    """
    config = {**noise_process.config, "timestep_spacing": "trailing"}
    if sampler == "ddim":
        return DDIMScheduler(**{name: config[name] for name in SHARED}, clip_sample=False)
    if sampler == "dpm":
        return DPMSolverMultistepScheduler(**{name: config[name] for name in SHARED})
    raise ValueError(f"sampler must be 'dpm' or 'ddim', but is {sampler!r}")


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: Any,
    standardized: Float[Tensor, "B D"],
    noise: Float[Tensor, "B C H W"],
    *,
    steps: int,
    guidance: float,
    clip: bool,
    guidance_interval: Interval = WHOLE,
) -> Float[Tensor, "B C H W"]:
    """Denoise; the guided prediction is ``none + guidance * (conditioned - none)``.

    Args:
        denoiser: the network.
        scheduler: from ``make_sampler``; its timesteps are set here.
        standardized: from ``Condition.standardize``.
        noise: from ``initial_noise``.
        steps: network evaluations (each of two halves if guided).
        guidance: 1 uses the conditioned prediction alone (https://arxiv.org/abs/2207.12598, their w + 1).
        clip: keep the clean image that each prediction implies in [-1, 1]; right for pixels, wrong for latents.
        guidance_interval: fractions of the noise process between which guidance applies
            (https://arxiv.org/abs/2404.07724); elsewhere the conditioned prediction alone is computed.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    images: Tensor = noise
    for timestep in scheduler.timesteps:
        at = timestep.expand(len(images))
        guided = in_interval(at, guidance_interval, scheduler.config["num_train_timesteps"])
        predicted = guided_prediction(denoiser, images, at, standardized, guidance, guided)
        if clip:
            predicted = clipped(scheduler, predicted, timestep, images)
        images = scheduler.step(predicted, timestep, images, return_dict=False)[0]
    return images


@torch.no_grad()
def edit(
    denoiser: Denoiser,
    noise_process: DDPMScheduler,
    standardized: Float[Tensor, "B D"],
    source: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B C H W"],
    *,
    strength: Float[Tensor, " B"],
    steps: int,
    guidance: float,
    clip: bool,
    guidance_interval: Interval = WHOLE,
) -> Float[Tensor, "B C H W"]:
    """Add noise to images and denoise them again (SDEdit, https://arxiv.org/abs/2108.01073).

    Each image starts at its own timestep and reaches the clean image in ``steps`` steps of second-order DPM-Solver++
    (https://arxiv.org/abs/2211.01095, algorithm 2), independently of the other images of the batch.

    Args:
        denoiser: the network.
        noise_process: the noise schedule that it was trained with.
        standardized: from ``Condition.standardize``.
        source: clean images in [-1, 1], or latents.
        noise: from ``initial_noise``.
        strength: fraction of the noise process to start at, in (0, 1]; at 1 almost nothing of the source remains.
        steps: network evaluations (each with and without the condition if guided).
        guidance: as for ``sample``.
        clip: as for ``sample``.
        guidance_interval: as for ``sample``.
    """
    timesteps = edit_timesteps(strength, steps, noise_process.config["num_train_timesteps"]).to(source.device)
    kept = noise_process.alphas_cumprod.to(source.device)[timesteps].view(steps, -1, 1, 1, 1)
    signals, sigmas = [*kept.sqrt(), torch.ones_like(kept[0])], [*(1 - kept).sqrt(), torch.zeros_like(kept[0])]
    images, previous = signals[0] * source + sigmas[0] * noise, None
    for step, timestep in enumerate(timesteps):
        guided = in_interval(timestep, guidance_interval, noise_process.config["num_train_timesteps"])
        predicted = guided_prediction(denoiser, images, timestep, standardized, guidance, guided)
        clean = clean_image(noise_process, predicted, timestep, images)
        clean = clean.clamp(-1, 1) if clip else clean
        ratio = signals[step + 1] * sigmas[step] / (sigmas[step + 1] * signals[step])  # exp of half the log-SNR step
        direction = clean
        if previous is not None and step + 1 < steps:
            direction = clean + (clean - previous[0]) * ratio.log() / (2 * previous[1].log())
        images = sigmas[step + 1] / sigmas[step] * images + signals[step + 1] * (1 - 1 / ratio) * direction
        previous = clean, ratio
    return images


def edit_timesteps(strength: Float[Tensor, " B"], steps: int, timesteps: int) -> Int[Tensor, "steps B"]:
    """Return evenly spaced timesteps down from each image's start; at strength 1, diffusers' "trailing" spacing."""
    fractions = 1 - torch.arange(steps, dtype=torch.float64) / steps
    return (fractions[:, None] * strength.double() * timesteps).round().long().sub(1).clamp_min(0)


def in_interval(timestep: Int[Tensor, " B"], interval: Interval, timesteps: int) -> Bool[Tensor, " B"] | None:
    """Return whether each timestep's fraction of the noise process lies in the interval; None if it is the whole."""
    if interval == WHOLE:
        return None
    fraction = (timestep + 1) / timesteps
    return (interval[0] <= fraction) & (fraction <= interval[1])


def guided_prediction(
    denoiser: Denoiser,
    images: Float[Tensor, "B C H W"],
    timestep: Int[Tensor, " B"],
    standardized: Float[Tensor, "B D"],
    guidance: float,
    guided: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, "B C H W"]:
    """Return ``uncond + guidance * (cond - uncond)``, or ``cond`` alone at guidance 1 and for images not ``guided``."""
    if guidance == 1 or (guided is not None and not guided.any()):
        return denoiser(images, timestep, standardized)
    if guided is None or guided.all():
        conditions = torch.cat([standardized, torch.zeros_like(standardized)])
        cond, uncond = denoiser(images.repeat(2, 1, 1, 1), timestep.repeat(2), conditions).chunk(2)
        return uncond + guidance * (cond - uncond)
    conditions = torch.cat([standardized, torch.zeros_like(standardized[guided])])
    both = denoiser(torch.cat([images, images[guided]]), torch.cat([timestep, timestep[guided]]), conditions)
    predicted, uncond = both[: len(images)].clone(), both[len(images) :]
    predicted[guided] = uncond + guidance * (predicted[guided] - uncond)
    return predicted


def clipped(
    scheduler: Any, predicted: Float[Tensor, "B C H W"], timestep: Tensor, noisy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """The prediction whose clean image is the predicted one's, kept in [-1, 1].

    Noise and clean image stay two readings of one prediction, so that every sampler goes to the same limit. With the
    clipping of diffusers' schedulers (the clean image alone, or rescaled) they do not.
    """
    clean = clean_image(scheduler, predicted, timestep, noisy).clamp(-1, 1)
    signal, sigma = _signal_and_sigma(scheduler, timestep, noisy)
    match scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - signal * clean) / sigma
        case "v_prediction":
            return (signal * noisy - clean) / sigma
        case _:
            return clean


def clean_image(
    scheduler: Any, predicted: Float[Tensor, "B C H W"], timestep: Int[Tensor, "..."], noisy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """Return the clean image implied by a predicted noise, velocity or image, at one timestep or one per image."""
    signal, sigma = _signal_and_sigma(scheduler, timestep, noisy)
    match scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - sigma * predicted) / signal
        case "v_prediction":
            return signal * noisy - sigma * predicted
        case _:
            return predicted


def _signal_and_sigma(scheduler: Any, timestep: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    kept = scheduler.alphas_cumprod.to(images.device)[timestep].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()
