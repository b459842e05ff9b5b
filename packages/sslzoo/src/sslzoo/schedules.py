"""Schedules as pure functions, which need no state to resume."""

import math


def cosine(progress: float, start: float, final: float) -> float:
    """Return the value of a half cosine from `start` (progress 0) to `final` (progress 1)."""
    return final + 0.5 * (start - final) * (1 + math.cos(math.pi * progress))


def linear_then_constant(progress: float, start: float, final: float, fraction: float) -> float:
    """Return the value of a line from `start` to `final` over the first `fraction` of the training, then `final`."""
    return final if progress >= fraction else start + (final - start) * progress / fraction


def warmup_cosine(
    step: int,
    total_steps: int,
    *,
    peak: float,
    final: float = 0.0,
    warmup_steps: int = 0,
    start: float = 0.0,
    warmup_includes_peak: bool = True,
) -> float:
    """Return the learning rate of a step: linear from `start` to `peak` over `warmup_steps`, then cosine to `final`.

    Args:
        step: zero-based.
        total_steps: number of steps of the training.
        peak: highest value.
        final: value that the cosine reaches at `total_steps`.
        warmup_steps: number of warm-up steps.
        start: value at step 0.
        warmup_includes_peak: whether the last warm-up step has the peak (`cosine_scheduler` of
            facebookresearch/dino@7c446df utils.py) or the first step after it (`adjust_learning_rate` of
            facebookresearch/vicreg@4e12602 main_vicreg.py).
    """
    if step < warmup_steps:
        return start + (peak - start) * step / max(1, warmup_steps - warmup_includes_peak)
    return cosine((step - warmup_steps) / max(1, total_steps - warmup_steps), peak, final)
