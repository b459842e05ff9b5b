"""kNN accuracy on held-out images during training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import ssl_eval
import sslzoo
from genviews.pretraining.options import DataConfig, RuntimeConfig
from genviews.recipes import Recipe
from genviews_core.distributed import default_group
from pairdata import LabeledImages, is_records
from sslzoo import DistContext, block_signals
from sslzoo.methods import Method

NEIGHBORS = 20
"""k, as in DINO; all training images if there are fewer."""


def open_knn(recipe: Recipe, data: DataConfig, runtime: RuntimeConfig, context: DistContext) -> OnlineKNN | None:
    """Return the kNN evaluation for --knn-test, or None without it.

    Raises:
        ValueError: one of the folders has no images in class folders, or they do not have the same classes.
    """
    if runtime.knn_test is None:
        return None
    if runtime.knn_every < 1:
        raise ValueError(f"expected --knn-every of 1 or more, got {runtime.knn_every}; leave it out for the default")
    if runtime.knn_train is None and is_records(data.images):
        raise ValueError(
            f"expected --knn-train with --knn-test and records, got none; give the folder {data.images} was packed from"
        )
    folders = (runtime.knn_train or data.images, runtime.knn_test)
    train, test = (_labeled(folder, recipe, data, context) for folder in folders)
    if train.classes != test.classes:
        raise ValueError(
            f"expected the same class folders in {folders[0]} and {folders[1]}, got different ones; check --knn-test"
        )
    return OnlineKNN(recipe=recipe, folders=folders, data=data, context=context)


@dataclass(frozen=True, kw_only=True)
class OnlineKNN:
    """kNN accuracy of a copy of the backbone, so that modes, hooks and compiled modules of the training stay untouched.

    Attributes:
        recipe: gives the architecture, image size and normalization.
        folders: training images (the neighbors) and test images.
        data: gives the number of decoding processes.
        context: this process.
    """

    recipe: Recipe
    folders: tuple[Path, Path]
    data: DataConfig
    context: DistContext

    def measure(self, method: Method) -> dict[str, float]:
        """Return the top-1 accuracy in percent on the main process; must be called on every process."""
        context, device = self.context, self.context.device
        backbone = sslzoo.create_backbone(**self.recipe.architecture)
        backbone.load_state_dict(method.backbone.state_dict())
        group = default_group()
        amp = torch.bfloat16 if device.type == "cuda" else None
        train, test = (
            ssl_eval.extract_features(backbone, block_signals(images), device=device, amp=amp, group=group)
            for images in (_labeled(folder, self.recipe, self.data, context) for folder in self.folders)
        )
        if not context.is_main:
            return {}
        k = min(NEIGHBORS, len(train))
        return {"knn": ssl_eval.knn_accuracy(train, test, k=k, device=device)[k]}


def _labeled(root: Path, recipe: Recipe, data: DataConfig, context: DistContext) -> LabeledImages:
    """Return this process's part of a folder, with the transforms of `genviews evaluate`."""
    size, augment = recipe.image_size, recipe.augmentation.first
    return LabeledImages(
        root,
        size=size,
        resize=round(size * 256 / 224) if size >= 64 else None,
        mean=augment.mean,
        std=augment.std,
        workers=data.workers,
        device=str(context.device),
        rank=context.rank,
        world_size=context.world_size,
        value_range=data.value_range,
    )
