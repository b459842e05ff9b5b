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
"""Computed at once: 64 MB with those in order, beside the features."""


def ranks_among(
    queries: Float[Tensor, "q d"],
    database: Float[Tensor, "n d"],
    wanted: Sequence[Int[Tensor, " _"]],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    device: str | torch.device | None = None,
) -> list[Int64[Tensor, " _"]]:
    """Where the images that each query wants stand among all, by cosine similarity; the best is 0.

    Of images equally near the earlier one comes first. The similarities are never all there: the database is gone
    through in blocks, twice, and distractors as they come.

    Args:
        queries: any scale; vectors are L2-normalized here.
        database: may be memory-mapped.
        wanted: rows of the database for each query.
        distractors: further images that nobody wants, in blocks of some thousands.
        device: where to compute; where the queries lie if None.

    Raises:
        ValueError: not one list of wanted images a query, or rows that the database has not.
    """
    if len(wanted) != len(queries):
        raise ValueError(f"{len(queries)} queries but {len(wanted)} lists of images to find: give one list a query")
    rows = torch.cat([*wanted, torch.zeros(1, dtype=torch.long)])
    if int(rows.min()) < 0 or int(rows.max()) >= len(database):
        raise ValueError(f"row {int(rows.max())} is to be found in a database of {len(database)} images")
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
    """How many images of a block stand before each wanted one; `places` are counted from the block's first image."""
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
    """Ranks, from the best to the worst, as they are where the junk is taken away."""
    ranks = ranks.sort().values
    return ranks - torch.searchsorted(junk.sort().values, ranks)


DIFFICULTIES = {
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
"""What is to be found and what is looked past: Revisiting Oxford and Paris, section 3.3, https://arxiv.org/abs/1803.11285."""


@dataclass(frozen=True, eq=False)
class RelevanceLabels:
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
    relevance: Sequence[RelevanceLabels],
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
    wanted = [torch.cat([getattr(each, kind) for kind in kinds]) for each in relevance]
    ranks = ranks_among(queries, database, wanted, distractors=distractors, device=device)
    by_kind = []
    for each, found in zip(relevance, ranks, strict=True):
        parts = found.split([len(getattr(each, kind)) for kind in kinds])
        by_kind.append(dict(zip(kinds, parts, strict=True)))
    scores = {}
    for difficulty, (right, passed) in DIFFICULTIES.items():
        pairs = [tuple(torch.cat([each[kind] for kind in some]) for some in (right, passed)) for each in by_kind]
        if any(len(positives) for positives, _ in pairs):
            scores[difficulty] = score_ranks([remove_junk(*pair) for pair in pairs], cutoffs)
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
