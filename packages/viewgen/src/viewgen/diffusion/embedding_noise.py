"""Noise on image embeddings, with a level per image: the strength of Stable unCLIP, for any model.

Shapes: B images of a batch, D the embedding size, T tokens of an image.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor

from genviews_core.backbones import first_line

MEASURE = "measure them with `viewgen statistics IMAGES --out FILE --generator NAME ...` and give statistics=FILE"


def published_schedule() -> DDPMScheduler:
    """Return the noise schedule of Stable unCLIP's image embeddings: 1,000 levels of the squared cosine."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")


class EmbeddingNoise:
    """Adds noise to standardized embeddings and returns them in their own units.

    Args:
        schedule: a scheduler of diffusers, whose ``add_noise`` takes a level per image.
        mean: mean of the embeddings, [1, D] or [D].
        std: their standard deviation.
    """

    def __init__(self, schedule: Any, mean: Float[Tensor, "*one D"], std: Float[Tensor, "*one D"]) -> None:
        self.schedule = schedule
        self.mean, self.std = mean.flatten().float().cpu(), std.flatten().float().cpu()

    @classmethod
    def from_statistics(cls, path: str | os.PathLike[str]) -> "EmbeddingNoise":
        """Return the published schedule with the mean and deviation that ``viewgen statistics`` measured.

        Raises:
            ValueError: if the file is damaged or of another kind.
        """
        try:
            measured = load_file(path)
            return cls(published_schedule(), measured["mean"], measured["std"])
        except Exception as error:  # a broken file raises many unrelated types
            raise ValueError(f"cannot read the statistics {path} ({first_line(error)}); {MEASURE}") from error

    def levels(self, strength: Float[Tensor, " B"] | None, count: int, default: int = 0) -> Int[Tensor, " B"]:
        """Return strengths as noise levels.

        Raises:
            ValueError: if they are not ``count`` whole numbers of the schedule.
        """
        if strength is None:
            return torch.full((count,), default)
        last = self.schedule.config.num_train_timesteps - 1
        fits = strength.shape == (count,) and bool(((strength >= 0) & (strength <= last)).all())
        if not fits or not torch.equal(strength, strength.round()):
            raise ValueError(
                f"expected {count} noise levels, integers in 0..{last}, got {strength.flatten()[:4].tolist()}"
            )
        return strength.long().cpu()

    def __call__(
        self,
        embeddings: Float[Tensor, "B *T D"],
        levels: Int[Tensor, " B"],
        draws: Sequence[torch.Generator],
    ) -> Float[Tensor, "B *T D"]:
        """Add noise to each embedding at its level, drawn from its own generator.

        Raises:
            ValueError: if the embeddings are not of the length that was measured.
        """
        if embeddings.shape[-1] != len(self.mean):
            raise ValueError(
                f"expected embeddings of length {len(self.mean)}, as the statistics', got {embeddings.shape[-1]}; "
                f"{MEASURE}"
            )
        noise = torch.stack([torch.randn(embeddings.shape[1:], generator=draw) for draw in draws])
        standardized = (embeddings.float().cpu() - self.mean) / self.std
        return self.schedule.add_noise(standardized, noise, levels) * self.std + self.mean
