"""Options of the quickstart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions:
    """Train SimCLR on hand-made views, a diffusion model on its embeddings, SimCLR on generative views; compare."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "generator": ("generator", "generator_steps", "sampling_steps", "strength", "guidance", "alpha"),
        "execution": ("batch_size", "processes", "checkpoint_seconds", "device"),
    }

    data: Path | None = None
    """Folder of training images; default: a procedural set of scenes."""
    test: Path | None = None
    """Folder of test images; both have one folder per class, used only for evaluation."""
    out: Path = Path("runs/quickstart")
    epochs: int = 11
    """Epochs of each encoder."""
    batch_size: int | None = None
    """Batch size of the encoders; default: 64, or the number of images if that is smaller."""
    generator: str = "32-dit"
    """Preset of the diffusion model."""
    generator_steps: int | None = None
    """Training steps of the diffusion model; default: those of the preset."""
    sampling_steps: int = 8
    """Denoising steps per view."""
    strength: float = 0.4
    """Fraction of the noise process that an image goes through before it is denoised; 1 starts from noise alone."""
    guidance: float = 1.0
    """Scale of classifier-free guidance; 1 is none."""
    alpha: tuple[float, float] = (0.3, 0.7)
    """Range of the interpolation weight of the first image, for the interpolated views of pairs.png."""
    seeds: int = 3
    """Number of encoders per row of the table; the diffusion model is trained once, on the first."""
    processes: int | None = None
    """Processes that share the work on a CPU, each on one thread; default: the number of usable cores."""
    checkpoint_seconds: float = 20.0
    """Seconds between checkpoints."""
    device: str = "auto"
