"""Frozen encoders of an ablation: their features, and whether they were measured."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import sslzoo
from pairdata import LabelledImages
from ssl_eval import Features, extract_features, read_results


def data_name(test: Path) -> str:
    """What results call the data set."""
    return test.parent.name or test.name


def is_measured(results: Path, recipe: str, backbone: str, seed: int) -> bool:
    """Whether there is a result of this encoder, named by the hash of its weights."""
    sought = (recipe, backbone, seed)
    return any((found.recipe, found.backbone, found.seed) == sought for found in read_results(results))


def features(backbone: nn.Module, trained: Path, roots: tuple[Path, ...], device: str) -> list[Features]:
    """One vector an image of each folder.

    Args:
        backbone: any of the architecture in `trained`.
        trained: a backbone folder; it tells what images the encoder expects.
        roots: folders of images, one folder a class.
        device: as apps/pretrain takes it.
    """
    expected, where = sslzoo.backbone_input(trained), sslzoo.start_worker({}, device).device
    return [
        extract_features(backbone.to(where), LabelledImages(root, **expected, device=str(where)), device=where)
        for root in roots
    ]
