"""How a training runs and what is watched meanwhile, as far as that is not the recipe's affair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genviews.recipes import Recipe
from sslzoo.methods import Method
from sslzoo.training.state import has_batch_norm


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a training runs; what it learns is the recipe's affair."""

    compile: bool = False
    """torch.compile for backbones and heads."""
    fused: bool = False
    """The optimizer's update as one kernel (sgd and adamw)."""
    accumulate: int = 1
    """A step's images go through the network in so many parts; their gradients are summed."""
    checkpoint_activations: bool = False
    """Compute activations again for the gradient instead of keeping them (vision transformers)."""

    probe: bool = True
    """Train a linear classifier beside the encoder, where the images have labels; the encoder learns nothing of it."""
    test: Path | None = None
    """Held-out images, one folder a class: kNN is measured on them while the encoder trains."""
    neighbours: Path | None = None
    """Its labelled training images; None takes --data, which must then be a folder."""
    knn_every: int = 10
    """Epochs from one kNN to the next; the last epoch always has one."""
    peak_tflops: float | None = None
    """What one device can do at most, for MFU; None takes what is known of it."""
    wandb: str | None = None
    """Project of Weights & Biases that gets the curves, too."""

    def require_parts(self, recipe: Recipe, world_size: int) -> None:
        """Each process must get equally many images for each part.

        Raises:
            ValueError: it does not.
        """
        unit = world_size * self.accumulate
        if self.accumulate < 1:
            raise ValueError(f"--accumulate {self.accumulate}: give 1 or more")
        if recipe.batch_size % unit:
            near = sorted({max(1, recipe.batch_size // unit) * unit, (recipe.batch_size // unit + 1) * unit})
            raise ValueError(
                f"batch size {recipe.batch_size} does not divide over {world_size} processes with {self.accumulate} "
                f"parts each: choose --batch-size {' or '.join(map(str, near))}"
            )

    def require_two(self, recipe: Recipe, method: Method) -> None:
        """Check that methods with batch statistics or batch comparisons get at least two images per accumulation step.

        Raises:
            ValueError: there is only one image.
        """
        part = recipe.batch_size // self.accumulate
        if part < 2 and (method.batch_coupled or has_batch_norm(method)):
            raise ValueError(
                f"expected at least 2 images per accumulation step for {recipe.method} with {recipe.backbone}, got "
                f"{part}; give more images, a larger --batch-size or a lower --accumulate"
            )
