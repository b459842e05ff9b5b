"""kNN on held-out images, every so many epochs of a training."""

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

NEIGHBOURS = 20
"""As ssl_eval and DINO have it; all training images where there are fewer."""


def open_knn(recipe: Recipe, data: DataConfig, runtime: RuntimeConfig, context: DistContext) -> OnlineKNN | None:
    """Return the kNN evaluation for --knn-test, or None without it.

    Raises:
        ValueError: one of the folders has no images in class folders, or they do not have the same classes.
    """
    if runtime.knn_test is None:
        return None
    if runtime.knn_every < 1:
        raise ValueError(f"--knn-every {runtime.knn_every}: give 1 or more")
    if runtime.knn_train is None and is_records(data.images):
        raise ValueError(f"{data.images} holds records: --knn-test needs --knn-train, the folder they were packed from")
    folders = (runtime.knn_train or data.images, runtime.knn_test)
    train, test = (_labelled(folder, recipe, data, context) for folder in folders)
    if train.classes != test.classes:
        raise ValueError(f"{folders[0]} and {folders[1]} do not hold the same class folders")
    return OnlineKNN(recipe=recipe, folders=folders, data=data, context=context)


@dataclass(frozen=True, kw_only=True)
class OnlineKNN:
    """Measures a copy of the exported backbone, so that no mode, hook or compiled network is touched.

    Attributes:
        recipe: says how images are normalized.
        folders: of the neighbours and of the images that are classified.
        data: says how many processes decode.
        context: this process.
    """

    recipe: Recipe
    folders: tuple[Path, Path]
    data: DataConfig
    context: DistContext

    def measure(self, method: Method) -> dict[str, float]:
        """Top-1 in percent, on the leading process. All processes must call it: each extracts a share."""
        context, device = self.context, self.context.device
        backbone = sslzoo.create_backbone(**self.recipe.architecture)
        backbone.load_state_dict(method.backbone.state_dict())
        group = default_group()
        amp = torch.bfloat16 if device.type == "cuda" else None
        train, test = (
            ssl_eval.extract_features(backbone, block_signals(images), device=device, amp=amp, group=group)
            for images in (_labelled(folder, self.recipe, self.data, context) for folder in self.folders)
        )
        if not context.is_main:
            return {}
        k = min(NEIGHBOURS, len(train))
        return {"knn": ssl_eval.knn_accuracy(train, test, k=k, device=device)[k]}


def _labelled(root: Path, recipe: Recipe, data: DataConfig, context: DistContext) -> LabeledImages:
    """This process's share of a folder, as apps/evaluate reads it."""
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
