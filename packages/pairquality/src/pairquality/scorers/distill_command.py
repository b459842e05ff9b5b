"""What `pairquality distill` does once encoder and PCA are there."""

from pathlib import Path

import torch

from genviews_core.progress import progress_bar
from pairquality.encoder import FeatureEncoder
from pairquality.foreground import ForegroundPCA
from pairquality.scorers.distill_config import DistillConfig
from pairquality.scorers.distillation import distill


def run_distill(
    images: Path,
    out: Path,
    encoder: FeatureEncoder,
    pca: ForegroundPCA,
    config: DistillConfig,
    *,
    workers: int = 4,
    device: str | torch.device = "cpu",
) -> int:
    """Train with a progress bar, print how well the scorer ranks held-out pairs, and return the exit code 0."""
    with progress_bar("steps") as update:
        about = distill(images, out, encoder, pca, config, workers=workers, on_progress=update, device=device)
    found = about.rank_correlation
    print(
        f"{out}: rank correlation with {about.encoder} on held-out pairs {found['quality']:.3f} "
        f"(foreground {found['foreground']:.3f}, background {found['background']:.3f})"
    )
    return 0
