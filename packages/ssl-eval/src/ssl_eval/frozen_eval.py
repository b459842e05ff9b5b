"""Evaluate a frozen encoder with weighted kNN and a linear probe."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from ssl_eval.features import Features
from ssl_eval.knn import knn_accuracy
from ssl_eval.linear import linear_probe
from ssl_eval.results import Result, machine

NEIGHBORS = 20


def evaluate_frozen(
    train: Features,
    test: Features,
    *,
    backbone: str,
    data: str,
    recipe: str,
    seed: int = 0,
    k: int | None = None,
    epochs: int = 100,
    device: str | torch.device | None = None,
    group: dist.ProcessGroup | None = None,
) -> list[Result]:
    """Evaluate features with DINO's weighted kNN (T = 0.07) and a linear probe.

    Args:
        train: training features.
        test: test features.
        backbone: hash of the encoder's weights.
        data: name of the data set.
        recipe: name of the row in tables.
        seed: seed of the encoder's training, also used for the probe.
        k: number of neighbors; None for 20, or all training images if fewer.
        epochs: epochs of the probe.
        device: device of the computation; None for that of the features.
        group: processes that share the work; each has all features and gets the same results.

    Returns:
        Two results, top-1 accuracy in percent.
    """
    same = {"metric": "top1", "backbone": backbone, "data": data, "recipe": recipe, "seed": seed, "machine": machine()}
    started = time.perf_counter()
    k = min(NEIGHBORS, len(train)) if k is None else k
    knn = knn_accuracy(train, test, k=k, device=device, group=group)[k]
    knn_seconds = time.perf_counter() - started
    started = time.perf_counter()
    linear = linear_probe(train, test, epochs=epochs, seed=seed, device=device, group=group)
    linear_seconds = time.perf_counter() - started
    return [
        Result(task="knn", value=knn, protocol=f"k={k} T=0.07", seconds=knn_seconds, **same),
        Result(task="linear", value=linear.accuracy, protocol="frozen features", seconds=linear_seconds, **same),
    ]
