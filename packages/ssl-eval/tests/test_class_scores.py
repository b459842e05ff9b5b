"""Scores of unbalanced classes, by hand and against scikit-learn's."""

import pytest
import torch

from ssl_eval.slides.classification_metrics import classification_metrics


def test_scores_by_hand():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    found = classification_metrics(probabilities, torch.tensor([0, 1, 1, 2]))
    assert found.accuracy == 75 and found.balanced_accuracy == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    assert found.macro_f1 == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    assert found.weighted_f1 == pytest.approx(100 * (2 / 3 + 2 * 2 / 3 + 1) / 4)
    assert found.auc == pytest.approx(100)  # every slide of a class is above all others in that class's column
    assert found.kappa == pytest.approx(100 * (1 - 1 / ((1 * 1 + 1 * 4 + 2 * 2 + 2 * 1 + 1 * 4 * 2 + 1 * 1) / 4)))


def test_equal_scores_count_half():
    first = torch.tensor([0.5, 0.5, 0.9, 0.1])
    found = classification_metrics(torch.stack([first, 1 - first], dim=1), torch.tensor([0, 1, 0, 1]))
    assert found.auc == pytest.approx(100 * 3.5 / 4)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_scores_are_scikit_learns(classes):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.cat(
            [torch.arange(classes), torch.randint(0, classes, (90,), generator=generator) ** 2 % classes]
        )
        logits = torch.randn(len(labels), classes, generator=generator)
        logits[torch.arange(len(labels)), labels] += 0.7
        probabilities = logits.double().softmax(dim=1).mul(64).round().add(1)  # in steps, so that some are equal
        probabilities /= probabilities.sum(dim=1, keepdim=True)
        found, guesses = classification_metrics(probabilities, labels), probabilities.argmax(dim=1)
        ours = probabilities[:, 1] if classes == 2 else probabilities
        expected = {
            "accuracy": metrics.accuracy_score(labels, guesses),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, guesses),
            "auc": metrics.roc_auc_score(labels, ours, multi_class="ovr"),
            "weighted_f1": metrics.f1_score(labels, guesses, average="weighted"),
            "macro_f1": metrics.f1_score(labels, guesses, average="macro"),
            "kappa": metrics.cohen_kappa_score(labels, guesses, weights="quadratic"),
        }
        for name, value in expected.items():
            assert getattr(found, name) == pytest.approx(100 * value, abs=1e-4), (seed, name)


def test_every_class_needs_test_slides():
    with pytest.raises(ValueError, match="got none of class 1"):
        classification_metrics(torch.eye(3), torch.tensor([0, 2, 2]))
    with pytest.raises(ValueError, match=r"expected labels in 0..2, got 3"):
        classification_metrics(torch.eye(3), torch.tensor([0, 1, 3]))
