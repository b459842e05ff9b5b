"""Ranks of relevant images among a database of any size in bounded memory, and mean average precision from them.

Shapes: q queries, n images of the database, b of a block, d feature width, r ranks, m most relevant images of a query.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

SIMILARITIES = 2**22
"""Number of similarities computed at once: 64 MB including the sorted copy."""


def ranks_among(
    queries: Float[Tensor, "q d"],
    database: Float[Tensor, "n d"],
    wanted: Sequence[Int[Tensor, " _"]],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    device: str | torch.device | None = None,
) -> list[Int64[Tensor, " _"]]:
    """Compute the ranks of the relevant images of each query by cosine similarity; the best rank is 0.

    Ties are broken by position. The similarity matrix is never stored: the database is processed in blocks, twice, and
    distractors as they arrive.

    Args:
        queries: any scale; vectors are L2-normalized here.
        database: may be memory-mapped.
        wanted: database rows of the relevant images of each query.
        distractors: features of further, irrelevant images, in blocks of some thousands.
        device: device of the computation; None for that of the queries.

    Raises:
        ValueError: there is not one list per query, or a row is out of range.
    """
    if len(wanted) != len(queries):
        raise ValueError(
            f"expected one list of relevant images per query, got {len(queries)} queries and {len(wanted)} lists"
        )
    rows = torch.cat([*wanted, torch.zeros(1, dtype=torch.long)])
    if int(rows.min()) < 0 or int(rows.max()) >= len(database):
        raise ValueError(f"expected relevant rows in 0..{len(database) - 1}, the database, got {int(rows.max())}")
    device = queries.device if device is None else torch.device(device)
    queries = normalize(queries.to(device).float(), dim=1)
    at_once = max(1, SIMILARITIES // max(1, len(queries)))

    def similarities(some: Tensor) -> Tensor:
        return queries @ normalize(some.to(device).float(), dim=1).T

    places = pad_sequence([each.long() for each in wanted], batch_first=True, padding_value=-1).to(device)
    scores = torch.zeros(places.shape, device=device)
    for start, block in zip(range(0, len(database), at_once), database.split(at_once), strict=True):
        here = (places >= start) & (places < start + len(block))
        local = (places - start).clamp(0, len(block) - 1)
        scores = torch.where(here, similarities(block).gather(1, local), scores)
    ranks = torch.zeros_like(places)
    for start, block in zip(range(0, len(database), at_once), database.split(at_once), strict=True):
        ranks += _before(similarities(block), scores, places - start)
    for arriving in distractors:
        for block in arriving.split(at_once):
            ranks += _before(similarities(block), scores, places.new_full(places.shape, -1))
    return [row[: len(each)].cpu() for row, each in zip(ranks, wanted, strict=True)]


def _before(
    block: Float[Tensor, "q b"], scores: Float[Tensor, "q m"], places: Int64[Tensor, "q m"]
) -> Int64[Tensor, "q m"]:
    """Count the images of a block that rank before each relevant one; `places` are relative to the block."""
    ordered = block.sort(dim=1).values
    not_nearer = torch.searchsorted(ordered, scores.contiguous(), right=True)
    as_near = not_nearer - torch.searchsorted(ordered, scores.contiguous())
    before = block.shape[1] - not_nearer + torch.where(places >= block.shape[1], as_near, 0)
    inside = (places >= 0) & (places < block.shape[1])
    for query, column in (inside & (as_near > 1)).nonzero().tolist():
        earlier = block[query, : places[query, column]]
        before[query, column] += (earlier == scores[query, column]).sum()
    return before


def remove_junk(ranks: Int64[Tensor, " r"], junk: Int64[Tensor, " _"]) -> Int64[Tensor, " r"]:
    """Return sorted ranks after removing the junk images from the ranking."""
    ranks = ranks.sort().values
    return ranks - torch.searchsorted(junk.sort().values, ranks)


DIFFICULTIES = {
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
"""Relevant and ignored kinds: Revisiting Oxford and Paris, section 3.3, https://arxiv.org/abs/1803.11285."""


@dataclass(frozen=True, eq=False)
class RelevanceLabels:
    """Database rows by their relevance to one query; all others are irrelevant.

    Attributes:
        easy: clearly relevant.
        hard: relevant, but from another viewpoint, small or occluded.
        junk: ignored, neither relevant nor irrelevant.
    """

    easy: Int64[Tensor, " _"]
    hard: Int64[Tensor, " _"]
    junk: Int64[Tensor, " _"]


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Means over the queries with relevant images, in percent.

    Attributes:
        mean_average_precision: mAP.
        precision: mP@k for each k.
        queries: number of queries.
    """

    mean_average_precision: float
    precision: Mapping[int, float]
    queries: int


def revisited_scores(
    queries: Float[Tensor, "q d"],
    database: Float[Tensor, "n d"],
    relevance: Sequence[RelevanceLabels],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    cutoffs: Sequence[int] = (1, 5, 10),
    device: str | torch.device | None = None,
) -> dict[str, RetrievalScore]:
    """Evaluate by the revisited protocol: one score per difficulty that has relevant images.

    https://github.com/filipradenovic/revisitop, python/example_evaluate.py at be39832. Arguments and errors as in
    `ranks_among`.
    """
    kinds = ("easy", "hard", "junk")
    wanted = [torch.cat([getattr(each, kind) for kind in kinds]) for each in relevance]
    ranks = ranks_among(queries, database, wanted, distractors=distractors, device=device)
    by_kind = []
    for each, query_ranks in zip(relevance, ranks, strict=True):
        parts = query_ranks.split([len(getattr(each, kind)) for kind in kinds])
        by_kind.append(dict(zip(kinds, parts, strict=True)))
    scores = {}
    for difficulty, (right, passed) in DIFFICULTIES.items():
        pairs = [tuple(torch.cat([each[kind] for kind in some]) for some in (right, passed)) for each in by_kind]
        if any(len(positives) for positives, _ in pairs):
            scores[difficulty] = score_ranks([remove_junk(*pair) for pair in pairs], cutoffs)
    return scores


def score_ranks(positives: Sequence[Int64[Tensor, " _"]], cutoffs: Sequence[int] = ()) -> RetrievalScore:
    """Average over the queries with relevant images.

    Args:
        positives: ranks of all relevant images of each query.
        cutoffs: k of mP@k; fewer if all relevant images rank before.

    Raises:
        ValueError: no query has relevant images.
    """
    counted = [ranks for ranks in positives if len(ranks)]
    if not counted:
        raise ValueError("expected relevant images of at least one query, got none")
    precision = {k: 100 * sum(precision_at(ranks, k) for ranks in counted) / len(counted) for k in cutoffs}
    mean = 100 * sum(average_precision(ranks, len(ranks)) for ranks in counted) / len(counted)
    return RetrievalScore(mean_average_precision=mean, precision=precision, queries=len(counted))


def average_precision(ranks: Int64[Tensor, " r"], count: int) -> float:
    """Compute the area under the precision-recall curve by trapezoids, from 0 to 1.

    Args:
        ranks: ranks of the retrieved relevant images, from 0.
        count: number of relevant images; those without a rank count as not retrieved.
    """
    ranks = ranks.sort().values.double()
    position = torch.arange(len(ranks), dtype=torch.float64)
    before = torch.where(ranks > 0, position / ranks.clamp(min=1), 1.0)
    return float((before + (position + 1) / (ranks + 1)).sum()) / (2 * count)


def precision_at(ranks: Int64[Tensor, " r"], k: int) -> float:
    """Compute the precision among the first k images, or fewer if all relevant ones rank before."""
    first = min(k, int(ranks.max()) + 1)
    return float((ranks < first).sum()) / first
