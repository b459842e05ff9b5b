"""Weighted kNN and the linear probe on cached features, against lightly's and scikit-learn's.

Shapes: n training images, m test images, d feature width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightly.utils.benchmarking import LinearClassifier, knn_predict
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.throughput.timing import rates
from ssl_eval import Features, knn_predictions, linear_probe
from ssl_eval.linear import LEARNING_RATES

K, TEMPERATURE, BATCH = 20, 0.07, 256
RIVALS = ("lightly", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class EvaluationBenchmark:
    """Seconds of kNN, and seconds of the probe per learning rate, with the accuracy of each implementation.

    lightly's kNN compares 256 test images at a time with all training images; its probe is its LinearClassifier in a
    Lightning trainer. scikit-learn's kNN is brute force by cosine with the same votes; its probe is logistic
    regression by L-BFGS with as many iterations as ours has epochs, for one strength of regularization.

    Attributes:
        train: number of training images.
        test: number of test images.
        width: dimension of the features.
        classes: number of classes.
        epochs: epochs of the probe.
        rounds: number of timed rounds.
        device: device of our implementation and lightly's.
    """

    train: int = 50_000
    test: int = 10_000
    width: int = 512
    classes: int = 10
    epochs: int = 10
    rounds: int = 3
    device: str = "cpu"


def measure_evaluation(options: EvaluationBenchmark) -> list[tuple[str, ...]]:
    """Return a row for kNN and a row for the probe."""
    train, test = (_draw(options, count, seed) for count, seed in ((options.train, 1), (options.test, 2)))
    rows = []
    for work, tried, ways in (
        ("kNN", 1, _knn(train, test, options)),
        ("probe, a rate", len(LEARNING_RATES), _probe(train, test, options)),
    ):
        reached: dict[str, float] = {}

        def noted(name: str, run: Callable[[], float], reached: dict[str, float] = reached) -> Callable[[], None]:
            return lambda: reached.__setitem__(name, run())

        speed = rates({name: noted(name, run) for name, run in ways.items()}, items=1, rounds=options.rounds, warmup=1)
        seconds = {name: 1 / (rate * (tried if name == "ours" else 1)) for name, rate in speed.items()}
        cells = [f"{seconds[name]:.2f} ({reached[name]:.2f}%)" if name in ways else "" for name in ("ours", *RIVALS)]
        ratios = [f"{seconds[name] / seconds['ours']:.2f}x" if name in ways else "not installed" for name in RIVALS]
        rows.append((work, *cells, *ratios))
    return rows


def _draw(options: EvaluationBenchmark, count: int, seed: int) -> Features:
    """Draw overlapping clusters, one per class."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(options.classes, options.width, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, options.classes, (count,), generator=generator)
    points = 0.1 * centres[labels] + torch.randn(count, options.width, generator=generator)
    return Features(points, labels).to(options.device)


def _knn(train: Features, test: Features, options: EvaluationBenchmark) -> dict[str, Callable[[], float]]:
    def ours() -> float:
        return _accuracy(knn_predictions(train, test, k=K, temperature=TEMPERATURE)[K], test)

    def lightly() -> float:
        bank = normalize(train.features, dim=1).t().contiguous()
        queries = normalize(test.features, dim=1)
        guesses = [
            knn_predict(part, bank, train.labels, options.classes, knn_k=K, knn_t=TEMPERATURE)[:, 0]
            for part in queries.split(BATCH)
        ]
        return _accuracy(torch.cat(guesses), test)

    def scikit() -> float:
        from sklearn.neighbors import KNeighborsClassifier  # pyright: ignore[reportMissingImports]

        def votes(distances: np.ndarray) -> np.ndarray:
            return np.exp((1 - distances) / TEMPERATURE)

        voting: Any = votes
        model = KNeighborsClassifier(K, algorithm="brute", metric="cosine", weights=voting)
        model.fit(train.features.cpu().numpy(), train.labels.cpu().numpy())
        return _accuracy(torch.from_numpy(model.predict(test.features.cpu().numpy())), test)

    return _present({"ours": ours, "lightly": lightly, "scikit-learn": scikit})


def _probe(train: Features, test: Features, options: EvaluationBenchmark) -> dict[str, Callable[[], float]]:
    def ours() -> float:
        return linear_probe(train, test, epochs=options.epochs, batch_size=BATCH).accuracy

    def lightly() -> float:
        return _lightly_probe(train, test, options)

    def scikit() -> float:
        from sklearn.linear_model import LogisticRegression  # pyright: ignore[reportMissingImports]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence warnings, because there are few iterations
            model = LogisticRegression(max_iter=options.epochs)
            model.fit(train.features.cpu().numpy(), train.labels.cpu().numpy())
        return _accuracy(torch.from_numpy(model.predict(test.features.cpu().numpy())), test)

    return _present({"ours": ours, "lightly": lightly, "scikit-learn": scikit})


def _lightly_probe(train: Features, test: Features, options: EvaluationBenchmark) -> float:
    """Train lightly's linear classifier with its default learning rate and return its accuracy in percent."""
    from pytorch_lightning import Trainer

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    model = LinearClassifier(
        torch.nn.Identity(), BATCH, feature_dim=options.width, num_classes=options.classes, topk=(1,)
    )
    accelerator = "cpu" if options.device == "cpu" else "gpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a loader without workers, which tensors in memory do not need
        trainer = Trainer(
            accelerator=accelerator, devices=1, max_epochs=options.epochs, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        images = DataLoader(TensorDataset(train.features, train.labels), batch_size=BATCH, shuffle=True)
        trainer.fit(model, images)
        found = trainer.validate(model, DataLoader(TensorDataset(*_pair(test)), batch_size=BATCH), verbose=False)
    return 100 * found[0]["val_top1"]


def _pair(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    return features.features, features.labels


def _accuracy(guesses: torch.Tensor, test: Features) -> float:
    return 100 * float((guesses.to(test.labels.device) == test.labels).double().mean())


def _present(ways: dict[str, Callable[[], float]]) -> dict[str, Callable[[], float]]:
    """Drop scikit-learn if it is not installed."""
    try:
        import sklearn  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {name: run for name, run in ways.items() if name != "scikit-learn"}
    return ways
