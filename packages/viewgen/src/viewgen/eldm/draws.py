"""The random part of a batch from which a diffusion model learns.

Shapes: B images of this process's part of a batch, C, H, W the channels and sides of what is denoised.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.data import Part, draw_images
from viewgen.seeding import generator_for


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random part of a batch.

    Attributes:
        flip: which images are mirrored.
        keep: which images keep their condition.
        timestep: of the noise process.
        noise: standard normal.
    """

    flip: Bool[Tensor, " B"]
    keep: Bool[Tensor, " B"]
    timestep: Int[Tensor, " B"]
    noise: Float[Tensor, "B C H W"]


def draw(part: Part, config: ELDMConfig, shape: tuple[int, int, int]) -> Draws:
    """The draws of one process's part of a batch; each place's are the same whichever process asks.

    The timesteps of a batch are evenly spread from a common random offset, which lowers the variance of the loss
    (https://arxiv.org/abs/2107.00630, appendix I). The logit-normal law is the logistic function of a standard normal
    (https://arxiv.org/abs/2403.03206, section 3.1).

    Args:
        part: the step and the places.
        config: of the training.
        shape: (C, H, W).
    """
    offset = torch.rand((), generator=generator_for(config.seed, "timestep", part.step), dtype=torch.float64)
    spread = (offset + torch.tensor(list(part.places), dtype=torch.float64) / config.batch_size) % 1
    if config.timestep_law == "logit_normal":
        spread = torch.special.ndtri(spread).sigmoid()
    uniform, noise = draw_images(part, config.seed, shape)
    return Draws(
        flip=(uniform[:, 0] < 0.5) & config.flip,
        keep=uniform[:, 1] >= config.condition_dropout,
        timestep=(spread * config.timesteps).long().clamp_max(config.timesteps - 1),
        noise=noise,
    )
