"""Weighted k nearest neighbors, as DINO evaluates (https://github.com/facebookresearch/dino, eval_knn.py).

Shapes: n training images, m test images, d feature width, c classes, k neighbors.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from genviews_core.distributed import all_gather_object, rank, world_size
from ssl_eval.features import Features, check_comparable


def knn_accuracy(
    train: Features,
    test: Features,
    *,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    chunk_size: int = 8192,
    device: str | torch.device | None = None,
    group: dist.ProcessGroup | None = None,
) -> dict[int, float]:
    """Return the top-1 accuracy in percent for each k; arguments and errors as in `knn_predictions`."""
    predictions = knn_predictions(
        train,
        test,
        k=k,
        temperature=temperature,
        num_classes=num_classes,
        chunk_size=chunk_size,
        device=device,
        group=group,
    )
    truth = test.labels
    return {
        count: 100.0 * float((guess == truth.to(guess.device)).double().mean()) for count, guess in predictions.items()
    }


def knn_predictions(
    train: Features,
    test: Features,
    *,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    chunk_size: int = 8192,
    device: str | torch.device | None = None,
    group: dist.ProcessGroup | None = None,
) -> dict[int, Int[Tensor, " m"]]:
    """Predict the class of each test image for each k: argmax_c of the sum of exp(cos / T) over neighbors of class c.

    Emerging Properties in Self-Supervised Vision Transformers, appendix A (https://arxiv.org/abs/2104.14294); the
    weights are those of https://arxiv.org/abs/1805.01978. Memory besides the features: a block of `chunk_size` squared
    similarities, its training features, and max(k) neighbors per test image. Ties may be broken arbitrarily.

    Args:
        train: training features; they are L2-normalized here.
        test: test features.
        k: number of neighbors; several values cost as much as the largest.
        temperature: temperature T of the votes.
        num_classes: number of classes; None for the largest training label plus one.
        chunk_size: blocks have chunk_size / 8 test and 8 chunk_size training images.
        device: device of the computation; None for that of the training features.
        group: processes that share the test images; each has all features and gets all predictions.

    Raises:
        ValueError: k outside 1..n, widths or classes of the two sets do not match, temperature not positive.
    """
    counts = [k] if isinstance(k, int) else list(k)
    check_comparable(train, test)
    if not counts or min(counts) < 1 or max(counts) > len(train):
        raise ValueError(f"expected k in 1..{len(train)}, the number of training images, got {counts}")
    if temperature <= 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}; DINO uses 0.07")
    classes = train.num_classes if num_classes is None else num_classes
    if classes < train.num_classes:
        raise ValueError(f"expected num_classes above the labels, got {classes} and the label {train.num_classes - 1}")
    device = train.features.device if device is None else torch.device(device)
    first, last = (len(test) * place // world_size(group) for place in (rank(group), rank(group) + 1))
    similarities, neighbors = _nearest(train.features, test.features[first:last], max(counts), chunk_size, device)
    voters = train.labels.to(device).long()[neighbors]
    # Subtracting the largest similarity changes no prediction and avoids overflow for any T.
    votes = ((similarities - similarities[:, :1]) / temperature).exp()
    own = {count: _elect(votes[:, :count], voters[:, :count], classes, chunk_size) for count in counts}
    if group is None:
        return own
    parts = all_gather_object({count: guesses.cpu() for count, guesses in own.items()}, group)
    return {count: torch.cat([part[count] for part in parts]).to(device) for count in counts}


def _nearest(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"], k: int, chunk_size: int, device: torch.device
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Return cosine similarity and row of the k nearest training images, nearest first, in blocks over both sets."""
    queries_at_once, candidates_at_once = max(1, chunk_size // 8), 8 * chunk_size  # wide blocks are sorted fastest
    best = torch.full((len(test), k), -torch.inf, device=device)
    rows = torch.zeros(len(test), k, dtype=torch.long, device=device)
    for start in range(0, len(train), candidates_at_once):
        candidates = normalize(train[start : start + candidates_at_once].to(device).float(), dim=1)
        blocks = (part.split(queries_at_once) for part in (test, best, rows))
        for queries, kept, kept_rows in zip(*blocks, strict=True):
            similarity = normalize(queries.to(device).float(), dim=1) @ candidates.T
            near, where = similarity.topk(min(k, len(candidates)), dim=1)
            merged, choice = torch.cat([kept, near], dim=1).topk(k, dim=1)
            kept_rows.copy_(torch.cat([kept_rows, where + start], dim=1).gather(1, choice))
            kept.copy_(merged)
    return best, rows


def _elect(
    votes: Float[Tensor, "m k"], voters: Int[Tensor, "m k"], num_classes: int, chunk_size: int
) -> Int[Tensor, " m"]:
    """Return the class with the largest sum of votes; of equal ones the lowest."""
    winners = []
    for vote, voter in zip(votes.split(chunk_size), voters.split(chunk_size), strict=True):
        ballots = vote.new_zeros(len(vote), num_classes).scatter_add_(1, voter, vote)
        winners.append(ballots.argmax(dim=1))
    return torch.cat(winners)
