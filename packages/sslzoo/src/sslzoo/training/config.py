"""The configuration of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

RUNTIME = (
    *("compile", "fused", "checkpoint_activations", "num_classes", "evaluate_every", "log_every"),
    *("checkpoint_seconds", "peak_tflops", "wandb"),
)
"""Fields that do not affect the trained weights, so that a resumed run may change them."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimization, schedules, precision, logging and checkpoints; the same fields for all methods."""

    epochs: int = 100
    steps_per_epoch: int | None = None
    """Steps per epoch; None: len() of the batches."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `build_optimizer`, such as momentum, betas or trust_coefficient."""
    lr: float = 0.05
    """Learning rate after the warm-up."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine schedule."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    warmup_includes_peak: bool = True
    """Whether the last warm-up step, or the step after it, has the peak learning rate."""
    weight_decay: float = 1e-4
    final_weight_decay: float | None = None
    """Weight decay at the end of a cosine schedule; None: constant."""
    per_param_clip_norm: float | None = None
    """Maximum gradient norm of each parameter."""
    clip_grad_norm: float | None = None
    """Maximum gradient norm of all parameters together."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Autocast precision; fp16 uses a gradient scaler."""
    accumulation_steps: int = 1
    """Forward and backward passes per step, each with an equal part of the batch."""
    seed: int = 0

    compile: bool = False
    """Compile backbones and heads with torch.compile."""
    fused: bool = False
    """Update all parameters in one kernel (sgd and adamw)."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass (vision transformers)."""
    num_classes: int = 0
    """Classes of the online linear probe; 0: no probe."""
    evaluate_every: int = 10
    """Epochs between calls of the evaluation hook, which is also called after the last epoch."""
    log_every: int = 10
    """Steps between log lines; the first and the last step are always logged."""
    checkpoint_seconds: float = 600.0
    """Seconds between checkpoints; the last step is always saved."""
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device, for MFU; None: known values by device name."""
    wandb: str | None = None
    """Weights & Biases project to log to."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the fields that a resumed run must share."""
        return {name: value for name, value in asdict(self).items() if name not in RUNTIME}
