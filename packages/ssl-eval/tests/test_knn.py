import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_eval import Features, knn_accuracy, knn_predictions

# What facebookresearch/dino's eval_knn.knn_classifier (7c446df) predicts for `official_sets`, T = 0.07. scikit-learn
# 1.9.1, KNeighborsClassifier(k, algorithm="brute", metric="cosine", weights=exp((1 - distance) / 0.07)), the same.
OFFICIAL = {
    1: (51.0, "3233324421143343430120223441201444414432433221321132142232414404213023301434331031014214433444220343"),
    5: (57.0, "3233324421113342430130223441204444414132433221321132142232414404213023301434341032014244433444220343"),
    20: (60.0, "3233324421013342430120223441244444414132433221321122142222414404213023201434341032014240433444220343"),
}


def official_sets() -> tuple[Features, Features]:
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((5, 8))

    def draw(count: int) -> Features:
        labels = rng.integers(0, 5, count)
        points = centres[labels] + 1.5 * rng.standard_normal((count, 8))
        return Features(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels))

    return draw(300), draw(100)


def obvious_predictions(train: Features, test: Features, k: int, temperature: float, classes: int) -> list[int]:
    """One image at a time in float64."""
    winners = []
    unit = train.features.double() / train.features.double().norm(dim=1, keepdim=True)
    for query in test.features.double():
        cosines = zip((unit @ (query / query.norm())).tolist(), train.labels.tolist(), strict=True)
        votes = [0.0] * classes
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            votes[label] += np.exp(cosine / temperature)
        winners.append(votes.index(max(votes)))
    return winners


@pytest.mark.parametrize("chunk_size", [17, 8192])
def test_official_predictions(chunk_size):
    train, test = official_sets()
    found = knn_predictions(train, test, k=list(OFFICIAL), chunk_size=chunk_size)
    accuracies = knn_accuracy(train, test, k=list(OFFICIAL), chunk_size=chunk_size)
    for k, (accuracy, predictions) in OFFICIAL.items():
        assert "".join(map(str, found[k].tolist())) == predictions
        assert accuracies[k] == pytest.approx(accuracy)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 30), chunk_size=st.integers(1, 9), warm=st.booleans())
def test_equals_the_obvious_reference_for_any_chunks(seed, k, chunk_size, warm):
    rng = np.random.default_rng(seed)
    train = Features(torch.from_numpy(rng.standard_normal((30, 5))), torch.from_numpy(rng.integers(0, 4, 30)))
    known = train.labels[torch.from_numpy(rng.integers(0, 30, 12))]
    test = Features(torch.from_numpy(rng.standard_normal((12, 5))), known)
    temperature = 0.5 if warm else 0.07
    found = knn_predictions(train, test, k=k, temperature=temperature, chunk_size=chunk_size)
    assert found[k].tolist() == obvious_predictions(train, test, k, temperature, 4)


def test_the_scale_of_a_vector_does_not_matter_and_a_tiny_temperature_does_not_overflow():
    train, test = official_sets()
    scaled = Features(train.features * torch.linspace(0.1, 50, 300)[:, None], train.labels)
    assert torch.equal(knn_predictions(scaled, test)[20], knn_predictions(train, test)[20])
    sharp = knn_predictions(train, test, temperature=1e-4)[20]
    assert torch.equal(sharp, knn_predictions(train, test, k=1)[1])


def test_mistakes_are_named():
    train, test = official_sets()
    with pytest.raises(ValueError, match="301"):
        knn_accuracy(train, test, k=301)
    with pytest.raises(ValueError, match=r"expected k in 1\.\.300"):
        knn_accuracy(train, test, k=[0, 5])
    with pytest.raises(ValueError, match="8 wide in training and 7 in test"):
        knn_accuracy(train, Features(test.features[:, :7], test.labels))
    with pytest.raises(ValueError, match="got none of class 9"):
        knn_accuracy(train, Features(test.features[:1], torch.tensor([9])))
    with pytest.raises(ValueError, match="num_classes"):
        knn_accuracy(train, test, num_classes=3)
    with pytest.raises(ValueError, match="temperature"):
        knn_accuracy(train, test, temperature=0.0)
