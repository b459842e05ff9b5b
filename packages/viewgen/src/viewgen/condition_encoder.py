"""A generator's conditions as embeddings, so that they are computed once for all runs."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from viewgen.generator import Generator


class ConditionEncoder:
    """What ``embed_images`` takes, made of a generator; the embeddings are then that generator's conditions.

    Args:
        generator: its conditions must be one vector of real numbers per image.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, generator: Generator) -> None:
        self._generator: Any = generator
        self.name = f"conditions of {getattr(generator, 'model_id', type(generator).__name__)}"
        self.hash: str = getattr(generator, "encoder_hash", None) or generator.model_hash
        self.supervision = generator.supervision
        self.size: int | None = getattr(generator, "input_size", None)
        self.prepare = getattr(generator, "prepare", None)

    def __call__(self, images: Tensor) -> Float[Tensor, "B D"]:
        """The conditions of images, or of what ``prepare`` made of them.

        Raises:
            ValueError: if they are not vectors of real numbers.
        """
        generator = self._generator
        made = generator.condition(images) if self.prepare is None else generator.encode(images)
        if made.ndim != 2 or not made.is_floating_point():
            raise ValueError(f"the {self.name} are no vectors and cannot be kept: leave it to viewgen generate")
        return made.to(torch.float32)
