"""Where wanted images stand among all of a database, and of distractors without end, in bounded memory.

Shapes: q queries, n images of the database, b of a block, d feature width, r ranks, m most wanted of a query.
"""

from collections.abc import Iterable, Sequence

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
        queries: any scale; vectors are L2-normalised here.
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


def looking_past(ranks: Int64[Tensor, " r"], junk: Int64[Tensor, " _"]) -> Int64[Tensor, " r"]:
    """Ranks, from the best to the worst, as they are where the junk is taken away."""
    ranks = ranks.sort().values
    return ranks - torch.searchsorted(junk.sort().values, ranks)
