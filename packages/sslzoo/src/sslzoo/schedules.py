"""Schedules as pure functions; nothing to save, nothing to resume."""

import math


def cosine(progress: float, start: float, final: float) -> float:
    """Half a cosine from `start` (progress 0) to `final` (progress 1)."""
    return final + 0.5 * (start - final) * (1 + math.cos(math.pi * progress))


def linear_then_constant(progress: float, start: float, final: float, share: float) -> float:
    """A line from `start` to `final` over the first `share` of the training, then `final`."""
    return final if progress >= share else start + (final - start) * progress / share


def warmup_cosine(
    step: int,
    total_steps: int,
    *,
    peak: float,
    final: float = 0.0,
    warmup_steps: int = 0,
    start: float = 0.0,
    warmup_holds_peak: bool = True,
) -> float:
    """Learning rate of a step: a line from `start` to `peak` over `warmup_steps`, then half a cosine to `final`.

    Args:
        step: zero-based.
        total_steps: of the whole training; `step` counts against it.
        peak: highest value.
        final: value that the cosine would reach at `total_steps`.
        warmup_steps: how many steps the line takes.
        start: value at step 0 of the line.
        warmup_holds_peak: whether the last step of the line has the peak (`cosine_scheduler` of
            facebookresearch/dino@7c446df utils.py) or the first step after it (`adjust_learning_rate` of
            facebookresearch/vicreg@4e12602 main_vicreg.py).
    """
    if step < warmup_steps:
        return start + (peak - start) * step / max(1, warmup_steps - warmup_holds_peak)
    return cosine((step - warmup_steps) / max(1, total_steps - warmup_steps), peak, final)
