"""Ranks, average precision and the revisited protocol, without images."""

import pytest
import torch

from ssl_eval.retrieval import ranking
from ssl_eval.retrieval.ranking import (
    RelevanceLabels,
    average_precision,
    precision_at,
    ranks_among,
    remove_junk,
    revisited_scores,
    score_ranks,
)

# compute_map of filipradenovic/revisitop@be39832 python/evaluate.py on `drawn()`: mAP, then mP@1, mP@5, mP@10.
OFFICIAL = {
    "easy": (59.8021174731701, 60, 60, 52.22222222222223),
    "medium": (66.06611449102505, 83.33333333333334, 72.5, 59.166666666666664),
    "hard": (53.50889994768714, 66.66666666666666, 49.16666666666667, 45.83333333333333),
}


def drawn() -> tuple[torch.Tensor, torch.Tensor, list[RelevanceLabels]]:
    """Six queries, 90 images; every query's own images lie near it, the last has no easy ones."""
    generator = torch.Generator().manual_seed(0)
    queries, noise = (torch.randn(count, 8, generator=generator) for count in (6, 90))
    images = noise + torch.cat([queries.repeat_interleave(10, dim=0), torch.zeros(30, 8)])
    relevance = []
    for query in range(6):
        own = torch.arange(10 * query, 10 * query + 10)
        relevance.append(RelevanceLabels(easy=own[: 4 if query < 5 else 0], hard=own[4:7], junk=own[7:]))
    return queries, images, relevance


def test_the_revisited_protocol_is_the_official_one():
    found = revisited_scores(*drawn())
    for difficulty, official in OFFICIAL.items():
        score = found[difficulty]
        assert [score.mean_average_precision, *score.precision.values()] == pytest.approx(official, abs=1e-9)
    assert [found[each].queries for each in OFFICIAL] == [5, 6, 6]


def test_ranks_are_those_of_a_full_sort(monkeypatch):
    """Of vectors whose similarities are exact and often equal: the earlier image comes first."""
    generator = torch.Generator().manual_seed(0)
    halves = 0.5 * (torch.randint(0, 2, (96, 6), generator=generator) * 2 - 1)
    halves[torch.arange(96)[:, None], torch.randn(96, 6, generator=generator).argsort()[:, :2]] = 0
    queries, images = halves[:6], 3 * halves[6:]
    wanted = [torch.randperm(90, generator=generator)[: 12 * query] for query in range(6)]
    order = (queries @ images.T).argsort(dim=1, descending=True, stable=True)
    places = order.argsort(dim=1)
    for at_once in (6 * 90, 6 * 13, 6):
        monkeypatch.setattr(ranking, "SIMILARITIES", at_once)
        found = ranks_among(queries, images, wanted)
        for each, rows, place in zip(found, wanted, places, strict=True):
            assert each.tolist() == place[rows].tolist()


def test_distractors_stream(monkeypatch):
    queries, images, _ = drawn()
    monkeypatch.setattr(ranking, "SIMILARITIES", 6 * 4)
    wanted = [torch.arange(10 * query, 10 * query + 10) for query in range(6)]
    whole = ranks_among(queries, images, wanted)
    streamed = ranks_among(queries, images[:60], wanted, distractors=iter(images[60:].split(7)))
    assert all(torch.equal(*pair) for pair in zip(whole, streamed, strict=True))
    assert max(int(ranks.max()) for ranks in whole) > 20


def test_average_precision_by_hand():
    assert average_precision(torch.tensor([2, 0]), 2) == pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)
    assert average_precision(torch.tensor([0]), 2) == 0.5 and average_precision(torch.tensor([]).long(), 3) == 0
    assert precision_at(torch.tensor([0, 2]), 10) == pytest.approx(2 / 3)  # three images show all there is
    assert remove_junk(torch.tensor([1, 5, 3]), torch.tensor([4, 0, 9])).tolist() == [0, 2, 3]


def test_mistakes_are_named():
    queries, images, _ = drawn()
    with pytest.raises(ValueError, match="got 6 queries and 5 lists"):
        ranks_among(queries, images, [torch.arange(3)] * 5)
    with pytest.raises(ValueError, match=r"relevant rows in 0..89, the database, got 90"):
        ranks_among(queries, images, [torch.tensor([90])] * 6)
    with pytest.raises(ValueError, match="expected relevant images"):
        score_ranks([torch.tensor([]).long()] * 3)
