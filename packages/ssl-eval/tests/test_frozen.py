"""The usual two measurements: of separable features, of random ones, and what they write down."""

import torch

from ssl_eval import Features, evaluate_frozen


def _blobs(seed: int, spread: float) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(200) % 4
    centres = torch.eye(4, 16)
    return Features(centres[labels] + spread * torch.randn(200, 16, generator=generator), labels)


def _measure(spread: float) -> dict[str, float]:
    results = evaluate_frozen(
        _blobs(0, spread), _blobs(1, spread), backbone="b", data="blobs", recipe="r", seed=3, epochs=20
    )
    assert [(result.recipe, result.data, result.backbone, result.seed) for result in results] == [
        ("r", "blobs", "b", 3)
    ] * 2
    return {result.task: result.value for result in results}


def test_separable_features_are_told_apart_and_noise_is_not():
    assert all(value > 95 for value in _measure(0.1).values())
    assert all(value < 50 for value in _measure(20.0).values())


def test_knn_with_fewer_images_than_neighbors_uses_all():
    features = _blobs(0, 0.1)
    few = Features(features.features[:12], features.labels[:12])
    knn, _ = evaluate_frozen(few, _blobs(1, 0.1), backbone="b", data="blobs", recipe="r", epochs=2)
    assert knn.protocol == "k=12 T=0.07" and knn.value > 95
