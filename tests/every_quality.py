"""Train two steps with every method and every way of weighing pairs; one process for all, because starting is slow.

python tests/every_quality.py FOLDER

Leaves FOLDER/RECIPE-QUALITY/log.jsonl.
"""

import dataclasses
import sys
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining.job import train_encoder
from genviews.pretraining.options import DataConfig, QualityConfig
from genviews.recipes import RECIPES, Recipe
from pairdata import write_scenes
from pairquality import fit_images, load_encoder
from pairquality.scorers import DistillConfig, distill

SMALL = {"stem_stride": 1, "cifar_stem": True, "width": 4}
OPTIONS = {
    "cifar10-simsiam": {"projection_dim": 16, "prediction_dim": 8},
    "cifar10-moco-v2": {"queue_size": 64, "projection_dim": 16, "splits": 2},
    "cifar10-dino": {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8},
    "cifar10-gen-dino": {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8},
}


def recipe(name: str, **changes: object) -> Recipe:
    """A recipe at the smallest size."""
    made = RECIPES[name]()
    small = {"backbone": "resnet10", "backbone_options": SMALL, "method_options": OPTIONS[name]}
    return dataclasses.replace(made, **{**small, "epochs": 1, "batch_size": 16, "precision": "float32", **changes})


def encoder_files(folder: Path, images: Path) -> QualityConfig:
    """A backbone nobody trained, its PCA, and a scorer distilled from it in two steps."""
    torch.manual_seed(0)
    architecture = {"name": "resnet10", **SMALL, "width": 8}
    about = {"image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    backbone = folder / "backbone"
    network = sslzoo.create_backbone(**architecture)
    sslzoo.save_backbone(backbone, network, architecture=architecture, method="none", recipe=about, epoch=0, data="")
    encoder = load_encoder(str(backbone))
    pca = fit_images(images, encoder)
    pca.save(folder / "pca.safetensors")
    tiny = DistillConfig(steps=2, pairs=8, scorer_size=16, subspace=8, widths=(8, 8), held_out=4)
    distill(images, folder / "scorer.safetensors", encoder, pca, tiny)
    return QualityConfig(pca=folder / "pca.safetensors", scorer=folder / "scorer.safetensors")


def main() -> None:
    """Every method with every quality."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    write_scenes(folder / "scenes", count=40, seed=0)
    images = folder / "scenes" / "images"
    scoring = encoder_files(folder, images)
    worker = sslzoo.init_distributed({}, "cpu")
    for name in OPTIONS:
        for quality in ("none", "exact", "self", "distilled"):
            made = recipe(name, pair_weighting=quality, gamma=5.0)
            train_encoder(made, DataConfig(images=images), folder / f"{name}-{quality}", worker, quality=scoring)


if __name__ == "__main__":
    main()
