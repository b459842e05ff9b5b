"""Options of the quickstart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions:
    """Train DINO, train a diffusion model on its embeddings, generate views, train Gen-DINO on them, compare."""

    data: Path | None = None
    """Folder of training images; default: a procedural set of scenes."""
    test: Path | None = None
    """Folder of test images; both have one folder per class, used only for evaluation."""
    out: Path = Path("runs/quickstart")
    epochs: int = 20
    """Epochs of each of the two encoders."""
    batch_size: int | None = None
    """Batch size of the encoders; default: that of the recipe, or the number of images if that is smaller."""
    generator: str = "32-small"
    """Preset of the diffusion model."""
    generator_steps: int | None = None
    """Training steps of the diffusion model; default: those of the preset."""
    sampling_steps: int = 10
    alpha: tuple[float, float] = (0.3, 0.7)
    """Range of the interpolation weight of the first image."""
    seeds: int = 1
    """Number of encoders per row of the table; the diffusion model is trained once, on the first."""
    checkpoint_seconds: float = 20.0
    device: str = "auto"
