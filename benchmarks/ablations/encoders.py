"""Frozen encoders of an ablation: their features, and whether they were measured."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import sslzoo
from pairdata import LabeledImages
from ssl_eval import Features, extract_features, read_results


def measured_of(results: Path, recipe: str, backbone: str, data: str, seed: int) -> set[tuple[str, str]]:
    """Task and metric of every result of this encoder, named by the hash of its weights, on this data set."""
    sought = (recipe, backbone, data, seed)
    return {
        (found.task, found.metric)
        for found in read_results(results)
        if (found.recipe, found.backbone, found.data, found.seed) == sought
    }


def features(backbone: nn.Module, trained: Path, roots: tuple[Path, ...], device: str) -> list[Features]:
    """One vector an image of each folder.

    Args:
        backbone: any of the architecture in `trained`.
        trained: a backbone folder; it tells what images the encoder expects.
        roots: folders of images, one folder a class.
        device: as apps/pretrain takes it.
    """
    expected, where = sslzoo.backbone_input(trained), sslzoo.init_distributed({}, device).device
    return [
        extract_features(backbone.to(where), LabeledImages(root, **expected, device=str(where)), device=where)
        for root in roots
    ]
