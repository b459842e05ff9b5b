"""Distill a frozen encoder into a small scorer, on any folder of images."""

from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from genviews_core.files import check_writable
from genviews_core.listing import iter_images
from genviews_core.lock import lock_file
from pairquality.encoder import FeatureEncoder
from pairquality.fit import Progress
from pairquality.foreground import ForegroundPCA
from pairquality.images import choose_keys
from pairquality.scorers.crops import MakeViews, crops
from pairquality.scorers.distill_config import DistillConfig
from pairquality.scorers.distillation_data import PairDataset, Teacher, decode_size
from pairquality.scorers.distillation_trainer import DistillationTrainer
from pairquality.scorers.distilled import ScorerMetadata, read_metadata, save_distilled


def distill(
    images_root: str | Path,
    out: str | Path,
    encoder: FeatureEncoder,
    pca: ForegroundPCA,
    config: DistillConfig | None = None,
    *,
    make_views: MakeViews | None = None,
    workers: int = 4,
    checkpoint_seconds: float = 30.0,
    on_progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> ScorerMetadata:
    """Train a distilled scorer and write it; an interrupted call can be repeated (bit-identical on a CPU).

    The network learns to reproduce the encoder's tokens of augmented crops, within the subspace of the foreground and
    background vectors.

    Args:
        images_root: folder of images.
        out: .safetensors file to write; the training state is next to it.
        encoder: encoder to distill; the network is trained in the data type in which it computes.
        pca: PCA fitted on the encoder.
        config: training configuration.
        make_views: augmentation; by default `crops` at the encoder's size.
        workers: threads that read images.
        checkpoint_seconds: seconds between checkpoints.
        on_progress: called with (steps done, total steps).
        device: device on which the network is trained; the encoder stays on its own.

    Raises:
        ValueError: there are too few images, the file belongs to another run, the PCA belongs to another encoder, or
            the file cannot be written or another process is writing it.
    """
    pca.validate_encoder(encoder)
    root, out, config = Path(images_root), Path(out), config or DistillConfig()
    trained, held_out = _split(root, config)
    training = {**_plain(config), "keys": _digest(trained), "data": str(images_root)}
    if out.exists():
        return _finished(out, encoder, pca, training)
    with lock_file(out):
        if out.exists():  # another process has finished in between
            return _finished(out, encoder, pca, training)
        check_writable(out)
        teacher = Teacher(encoder, pca, make_views or partial(crops, size=encoder.size), torch.device(device))
        options = {"root": root, "views": config.views, "size": decode_size(encoder.size), "workers": workers}
        datasets = [PairDataset(keys=keys, **options) for keys in (trained, held_out)]
        run = DistillationTrainer(datasets[0], teacher, config, config.resolved_size(encoder.size))
        state = out.with_name(out.name + ".state")
        run.train(state, {**training, "encoder": encoder.hash, "pca": pca.hash}, checkpoint_seconds, on_progress)
        about = ScorerMetadata(
            encoder=encoder.name,
            encoder_hash=encoder.hash,
            pca_hash=pca.hash,
            size=run.size,
            mean=encoder.normalization[0],
            std=encoder.normalization[1],
            grid=encoder.grid,
            widths=config.widths,
            depths=config.depths,
            training={**training, "kept": run.subspace.kept},
            rank_correlation=run.agreement(datasets[1]),
        )
        save_distilled(out, run.network, run.pca.direction, about)
        state.unlink(missing_ok=True)
    return about


def _plain(config: DistillConfig) -> dict[str, Any]:
    """Return the configuration as JSON would give it back; files call ``scorer_size`` "side"."""
    values = {"side" if name == "scorer_size" else name: value for name, value in asdict(config).items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {**plain, "views": None if config.views is None else str(config.views)}


def _split(root: Path, config: DistillConfig) -> tuple[list[str], list[str]]:
    chosen = choose_keys(iter_images(root), config.count + config.held_out, config.seed)
    held_out = choose_keys(iter(chosen), min(config.held_out, len(chosen) // 10), config.seed + 1)
    trained = sorted(set(chosen) - set(held_out))
    if len(held_out) < 3 or len(trained) < config.pairs:
        raise ValueError(
            f"expected at least {max(30, 2 * config.pairs)} images under {root}, got {len(chosen)}; give more"
        )
    return trained, held_out


def _digest(keys: list[str]) -> str:
    return blake2b("\n".join(keys).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _finished(out: Path, encoder: FeatureEncoder, pca: ForegroundPCA, training: dict[str, Any]) -> ScorerMetadata:
    about = read_metadata(out)
    same = all(about.training.get(name) == value for name, value in training.items() if name != "data")
    if (about.encoder_hash, about.pca_hash) != (encoder.hash, pca.hash) or not same:
        raise ValueError(f"{out} holds a scorer of another encoder, PCA or training; choose another file, or delete it")
    return about
