"""Images noised to a strength of their own and denoised again (SDEdit, https://arxiv.org/abs/2108.01073).

Shapes: B images of a batch, C, H, W the channels and sides of what is denoised.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def edit(
    predict: Callable[[Tensor, Tensor], Tensor],
    noise_process: Any,
    source: Float[Tensor, "B C H W"],
    noise: Float[Tensor, "B C H W"],
    *,
    strength: Float[Tensor, " B"],
    steps: int,
    clip: bool,
) -> Float[Tensor, "B C H W"]:
    """Add noise to images and denoise them again (SDEdit, https://arxiv.org/abs/2108.01073).

    Each image starts at its own timestep and reaches the clean image in ``steps`` steps of second-order DPM-Solver++
    (https://arxiv.org/abs/2211.01095, algorithm 2), independently of the other images of the batch.

    Args:
        predict: predicts noise, velocity or image from noisy images and a timestep per image, with guidance if any.
        noise_process: the noise schedule of training, a scheduler of diffusers.
        source: clean images in [-1, 1], or latents.
        noise: noise from ``initial_noise``.
        strength: fraction of the noise process to start at, in (0, 1]; at 1 almost nothing of the source remains.
        steps: predictions.
        clip: keep the clean image that each prediction implies in [-1, 1]; right for pixels, wrong for latents.
    """
    timesteps = edit_timesteps(strength, steps, noise_process.config["num_train_timesteps"]).to(source.device)
    kept = noise_process.alphas_cumprod.to(source.device)[timesteps].view(steps, -1, 1, 1, 1)
    signals, sigmas = [*kept.sqrt(), torch.ones_like(kept[0])], [*(1 - kept).sqrt(), torch.zeros_like(kept[0])]
    images, previous = signals[0] * source + sigmas[0] * noise, None
    for step, timestep in enumerate(timesteps):
        clean = clean_image(noise_process, predict(images, timestep), timestep, images)
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


def clean_image(
    scheduler: Any, predicted: Float[Tensor, "B C H W"], timestep: Int[Tensor, "..."], noisy: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B C H W"]:
    """Return the clean image implied by a predicted noise, velocity or image, at one timestep or one per image."""
    signal, sigma = signal_and_sigma(scheduler, timestep, noisy)
    match scheduler.config.prediction_type:
        case "epsilon":
            return (noisy - sigma * predicted) / signal
        case "v_prediction":
            return signal * noisy - sigma * predicted
        case _:
            return predicted


def signal_and_sigma(scheduler: Any, timestep: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of the clean image and of the noise at one timestep, or at one per image."""
    kept = scheduler.alphas_cumprod.to(images.device)[timestep].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()
