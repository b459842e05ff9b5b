"""How a training runs and what is watched meanwhile, as far as that is not the recipe's affair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from genviews.recipes import Recipe
from sslzoo.heads import Encoder
from sslzoo.methods import Method

OVER_A_BATCH = {
    "simclr": "negatives",
    "moco-v3": "negatives",
    "swav": "the even shares of the clusters",
    "vicreg": "variances and covariances",
    "barlow-twins": "correlations",
}
"""What a method computes over a batch, beside the mean of its loss."""


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
        if part < 2 and (recipe.method in OVER_A_BATCH or _has_batch_norm(method)):
            raise ValueError(
                f"expected at least 2 images per accumulation step for {recipe.method} with {recipe.backbone}, got "
                f"{part}; give more images, a larger --batch-size or a lower --accumulate"
            )

    def note(self, recipe: Recipe, method: Method) -> str | None:
        """What summing over parts changes for this method, in one line; None for nothing."""
        if self.accumulate == 1:
            return None
        statistics = [OVER_A_BATCH[recipe.method]] if recipe.method in OVER_A_BATCH else []
        if _has_batch_norm(method):
            statistics.append("batch norm's statistics")
        if recipe.quality != "none":
            statistics.append("the weights of pairs")
        told = f"a step of {recipe.batch_size} images goes in {self.accumulate} parts"
        return f"{told}; over one part alone are taken: {'; '.join(statistics)}" if statistics else told

    def apply(self, method: Method) -> None:
        """Before the first step: less memory, compiled networks.

        Raises:
            ValueError: the backbone cannot compute its activations again.
        """
        for encoder in [part for part in method.modules() if isinstance(part, Encoder)]:
            if self.checkpoint_activations:
                _checkpoint(encoder.backbone)
            if self.compile:
                encoder.backbone.compile()
                encoder.head.compile()

    def optimizer_options(self, recipe: Recipe) -> dict[str, bool]:
        """For sslzoo.build_optimizer.

        Raises:
            ValueError: the recipe's optimizer has no fused kernel.
        """
        if self.fused and recipe.optimizer == "lars":
            raise ValueError("--fused: lars has no fused kernel; leave it out, or choose sgd or adamw")
        return {"fused": True} if self.fused else {}


def _checkpoint(backbone: nn.Module) -> None:
    """By timm's own switch, block by block."""
    if _has_batch_norm(backbone) or not hasattr(backbone, "set_grad_checkpointing"):
        raise ValueError(
            "--checkpoint-activations is for vision transformers: a batch norm that sees its batch again counts it "
            "twice in its running statistics; use --accumulate to save memory"
        )
    backbone.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())
