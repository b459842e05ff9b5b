"""Mean average precision of image retrieval, by the protocol of revisited Oxford and Paris.

Shapes: q queries, n images of the database, d feature width, r images to find.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_eval.retrieval.ranking import looking_past, ranks_among

DIFFICULTIES = {
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
"""What is to be found and what is looked past: Revisiting Oxford and Paris, section 3.3, https://arxiv.org/abs/1803.11285."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """Rows of the database by what they show of one query; all others are wrong.

    Attributes:
        easy: clearly the same.
        hard: the same, seen from another side, small or hidden.
        junk: not to be counted, neither right nor wrong.
    """

    easy: Int64[Tensor, " _"]
    hard: Int64[Tensor, " _"]
    junk: Int64[Tensor, " _"]


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Means over the queries that have something to find, in percent.

    Attributes:
        mean_average_precision: mAP.
        precision: mP@k for each k.
        queries: how many.
    """

    mean_average_precision: float
    precision: Mapping[int, float]
    queries: int


def revisited_scores(
    queries: Float[Tensor, "q d"],
    database: Float[Tensor, "n d"],
    judged: Sequence[Judgement],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    cutoffs: Sequence[int] = (1, 5, 10),
    device: str | torch.device | None = None,
) -> dict[str, RetrievalScore]:
    """The revisited protocol: one score for each of DIFFICULTIES, without those that no query has anything of.

    https://github.com/filipradenovic/revisitop, python/example_evaluate.py at be39832. Arguments and errors as in
    `ranks_among`.
    """
    kinds = ("easy", "hard", "junk")
    wanted = [torch.cat([getattr(each, kind) for kind in kinds]) for each in judged]
    ranks = ranks_among(queries, database, wanted, distractors=distractors, device=device)
    by_kind = []
    for each, found in zip(judged, ranks, strict=True):
        parts = found.split([len(getattr(each, kind)) for kind in kinds])
        by_kind.append(dict(zip(kinds, parts, strict=True)))
    scores = {}
    for difficulty, (right, passed) in DIFFICULTIES.items():
        pairs = [tuple(torch.cat([each[kind] for kind in some]) for some in (right, passed)) for each in by_kind]
        if any(len(positives) for positives, _ in pairs):
            scores[difficulty] = score_ranks([looking_past(*pair) for pair in pairs], cutoffs)
    return scores


def score_ranks(positives: Sequence[Int64[Tensor, " _"]], cutoffs: Sequence[int] = ()) -> RetrievalScore:
    """Means over the queries with positives.

    Args:
        positives: for each query the ranks of all images to find.
        cutoffs: k of mP@k; where fewer than k images are needed to see all positives, so many.

    Raises:
        ValueError: no query has anything to find.
    """
    counted = [ranks for ranks in positives if len(ranks)]
    if not counted:
        raise ValueError("no query has an image to find: check the lists of right images")
    precision = {k: 100 * sum(precision_at(ranks, k) for ranks in counted) / len(counted) for k in cutoffs}
    mean = 100 * sum(average_precision(ranks, len(ranks)) for ranks in counted) / len(counted)
    return RetrievalScore(mean_average_precision=mean, precision=precision, queries=len(counted))


def average_precision(ranks: Int64[Tensor, " r"], count: int) -> float:
    """The area under precision over recall by trapezoids, from 0 to 1.

    Args:
        ranks: of the images found, the best being 0.
        count: of the images to find; those without a rank are never found.
    """
    ranks = ranks.sort().values.double()
    found = torch.arange(len(ranks), dtype=torch.float64)
    before = torch.where(ranks > 0, found / ranks.clamp(min=1), 1.0)
    return float((before + (found + 1) / (ranks + 1)).sum()) / (2 * count)


def precision_at(ranks: Int64[Tensor, " r"], k: int) -> float:
    """The share of right images among the first k, or among so many as all right ones need."""
    first = min(k, int(ranks.max()) + 1)
    return float((ranks < first).sum()) / first
