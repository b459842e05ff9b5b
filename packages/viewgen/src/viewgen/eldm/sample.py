"""From conditions and seeds to images: deterministic samplers with classifier-free guidance.

Shapes: B images of a batch, C, H, W the channels and sides of what is denoised, D the embedding's length.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Float
from torch import Tensor

from viewgen.eldm.model import Denoiser

Sampler = Literal["dpm", "ddim"]
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
    standardised: Float[Tensor, "B D"],
    noise: Float[Tensor, "B C H W"],
    *,
    steps: int,
    guidance: float,
    clip: bool,
) -> Float[Tensor, "B C H W"]:
    """Denoise; the guided prediction is ``none + guidance * (conditioned - none)``.

    Args:
        denoiser: the network.
        scheduler: from ``make_sampler``; its timesteps are set here.
        standardised: from ``Condition.standardise``.
        noise: from ``initial_noise``.
        steps: network evaluations (each of two halves if guided).
        guidance: 1 uses the conditioned prediction alone (https://arxiv.org/abs/2207.12598, their w + 1).
        clip: keep the clean image that each prediction implies in [-1, 1]; right for pixels, wrong for latents.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    guided = guidance != 1
    conditions = torch.cat([standardised, torch.zeros_like(standardised)]) if guided else standardised
    images: Tensor = noise
    for timestep in scheduler.timesteps:
        inputs = torch.cat([images, images]) if guided else images
        predicted = denoiser(inputs, timestep.expand(len(inputs)), conditions)
        if guided:
            conditioned, none = predicted.chunk(2)
            predicted = none + guidance * (conditioned - none)
        if clip:
            predicted = clipped(scheduler, predicted, timestep, images)
        images = scheduler.step(predicted, timestep, images, return_dict=False)[0]
    return images


def clipped(
    scheduler: Any, predicted: Float[Tensor, "B C H W"], timestep: Tensor, noisy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """The prediction whose clean image is the predicted one's, kept in [-1, 1].

    Noise and clean image stay two readings of one prediction, so that every sampler goes to the same limit. With the
    clipping of diffusers' schedulers (the clean image alone, or rescaled) they do not.
    """
    signal = scheduler.alphas_cumprod.to(noisy.device)[timestep].sqrt()
    sigma = (1 - signal**2).sqrt()
    match scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - signal * ((noisy - sigma * predicted) / signal).clamp(-1, 1)) / sigma
        case "v_prediction":
            return (signal * noisy - (signal * noisy - sigma * predicted).clamp(-1, 1)) / sigma
        case _:
            return predicted.clamp(-1, 1)
