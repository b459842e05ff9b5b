"""What the whole loop may be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Train DINO, train a diffusion model on its embeddings, paint views, train Gen-DINO on them, compare."""

    data: Path | None = None
    """Folder of training images; left out, a procedural set of scenes is made."""
    test: Path | None = None
    """Folder of test images; both folders hold one folder a class, which only the table reads."""
    out: Path = Path("runs/first-light")
    epochs: int = 20
    """Of each of the two encoders."""
    batch_size: int | None = None
    """Batch size of the encoders; None: that of the recipe, or the number of images if that is smaller."""
    generator: str = "32-small"
    """Preset of the diffusion model."""
    generator_steps: int | None = None
    """Its training steps; None takes the preset's."""
    sampling_steps: int = 10
    alpha: tuple[float, float] = (0.3, 0.7)
    """The interpolation's weight of the first image is drawn between these."""
    seeds: int = 1
    """Encoders trained for each row of the table; the diffusion model is trained once, on the first."""
    checkpoint_seconds: float = 20.0
    device: str = "auto"
