"""Features of frozen encoders, and their existing results."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import sslzoo
from pairdata import LabeledImages
from ssl_eval import Features, Result, data_name, evaluate_frozen, extract_features, read_results

ACCURACIES = frozenset({("knn", "top1"), ("linear", "top1")})


def measured_of(results: Path, recipe: str, backbone: str, data: str, seed: int) -> set[tuple[str, str]]:
    """Return task and metric of every result of this encoder (by the hash of its weights) on this data set."""
    sought = (recipe, backbone, data, seed)
    return {
        (found.task, found.metric)
        for found in read_results(results)
        if (found.recipe, found.backbone, found.data, found.seed) == sought
    }


def features(backbone: nn.Module, trained: Path, roots: tuple[Path, ...], device: str) -> list[Features]:
    """Extract the features of each folder of images.

    Args:
        backbone: network of the architecture in `trained`.
        trained: backbone folder that gives image size and normalization.
        roots: folders of images, with one subfolder per class.
        device: see `--device` of apps/pretrain.
    """
    expected, where = sslzoo.backbone_input(trained), sslzoo.init_distributed({}, device).device
    return [
        extract_features(backbone.to(where), LabeledImages(root, **expected, device=str(where)), device=where)
        for root in roots
    ]


def measure_accuracies(
    trained: Path,
    *,
    name: str,
    seed: int,
    data: Path,
    test: Path,
    results: Path,
    device: str,
    needed: frozenset[tuple[str, str]] = ACCURACIES,
) -> list[Result]:
    """Measure kNN and linear accuracy of an encoder, unless ``needed`` results of it are there already.

    Args:
        trained: a backbone folder.
        name: name of the row in the table.
        seed: seed of the pretraining.
        data: folder of training images, with one subfolder per class.
        test: folder of test images, with one subfolder per class.
        results: file with the results so far.
        device: see `--device` of apps/pretrain.
        needed: task and metric of the results that must be there.

    Returns:
        The new results, which the caller appends; empty if there are none.
    """
    backbone = sslzoo.load_backbone(trained)
    about = {"backbone": sslzoo.backbone_hash(backbone), "data": data_name(test), "seed": seed}
    if needed <= measured_of(results, name, **about):
        return []
    train_features, test_features = features(backbone, trained, (data, test), device)
    return evaluate_frozen(train_features, test_features, recipe=name, **about)
