"""From conditions and seeds to images: deterministic samplers with classifier-free guidance.

Shapes: B images of a batch, C, H, W the channels and sides of what is denoised, D the embedding's length.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viewgen.diffusion.editing import clean_image, signal_and_sigma
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
        noise_process: the noise process in the model's folder.
        sampler: "ddim" (https://arxiv.org/abs/2010.02502, eta = 0) or "dpm" (DPM-Solver++ of second order,
            https://arxiv.org/abs/2211.01095). Neither clips: see ``sample``.
    """
    config = {**noise_process.config, "timestep_spacing": "trailing"}
    if sampler == "ddim":
        return DDIMScheduler(**{name: config[name] for name in SHARED}, clip_sample=False)
    if sampler == "dpm":
        return DPMSolverMultistepScheduler(**{name: config[name] for name in SHARED})
    raise ValueError(f"expected sampler 'dpm' or 'ddim', got {sampler!r}")


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
        scheduler: result of ``make_sampler``; its timesteps are set here.
        standardized: result of ``Condition.standardize``.
        noise: noise from ``initial_noise``.
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
    signal, sigma = signal_and_sigma(scheduler, timestep, noisy)
    match scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - signal * clean) / sigma
        case "v_prediction":
            return (signal * noisy - clean) / sigma
        case _:
            return clean
