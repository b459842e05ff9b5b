"""The usual two measurements of a frozen encoder: weighted kNN and a linear probe, as results."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from ssl_eval.features import Features
from ssl_eval.knn import knn_accuracy
from ssl_eval.linear import linear_probe
from ssl_eval.results import Result, machine

NEIGHBOURS = 20


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
    """DINO's weighted kNN (T 0.07) and a linear probe whose learning rate is chosen on held-out training data.

    Args:
        train: features the neighbours and the probe learn from.
        test: features that are classified, once.
        backbone: hash of the encoder.
        data: name of the data set.
        recipe: the row's name in tables.
        seed: of the encoder's training; also of the probe.
        k: neighbours; 20 where None, or all training images where there are fewer.
        epochs: of the probe.
        device: where to compute; where the features lie if None.
        group: processes that share the work; each has all features, and gets the same results.

    Returns:
        Two results, top-1 accuracy in percent.
    """
    same = {"metric": "top1", "backbone": backbone, "data": data, "recipe": recipe, "seed": seed, "machine": machine()}
    started = time.perf_counter()
    k = min(NEIGHBOURS, len(train)) if k is None else k
    knn = knn_accuracy(train, test, k=k, device=device, group=group)[k]
    knn_seconds = time.perf_counter() - started
    started = time.perf_counter()
    linear = linear_probe(train, test, epochs=epochs, seed=seed, device=device, group=group)
    linear_seconds = time.perf_counter() - started
    return [
        Result(task="knn", value=knn, protocol=f"k={k} T=0.07", seconds=knn_seconds, **same),
        Result(task="linear", value=linear.accuracy, protocol="frozen features", seconds=linear_seconds, **same),
    ]
