"""Nearest neighbors in a pool of vectors by cosine similarity: exact, or with an inverted file index.

Shapes: N vectors of the pool, D their length, B queries, K neighbors of each, W >= K candidates for them, M
vectors of a chunk.
"""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

CHUNK_VALUES = 1 << 24  # numbers of the pool compared at a time: 64 MB in float32
QUERY_BLOCK = 256  # queries compared at a time
SPARE = 8  # candidates beyond K of an exact search
IVF_SPARE = 64  # and of one in an inverted file, whose vectors are coarser
CLOSE = 2.0**-18  # two float32 similarities nearer than this may be in the wrong order


class Search(Protocol):
    """Finds neighbors in a pool."""

    def __call__(self, queries: Float[Tensor, "B D"], own: Int[Tensor, " B"], count: int) -> Int[Tensor, "B K"]:
        """Return the ``count`` rows nearest to each query, nearest first, except the row ``own`` (-1: no row)."""
        ...


class ExactSearch:
    """Exact search: compares each query with the whole pool in chunks; ties are broken by the lowest row.

    Float32 similarities choose a few rows of each chunk, float64 ones order them. Where more rows than these few are
    within rounding of the last neighbor, the query is compared with the chunk again in float64. So what is found does
    not depend on what else is asked for, nor on a device that multiplies in full float32.

    Args:
        pool: float array (N, D), possibly memory-mapped.
        device: device of the search.
    """

    def __init__(self, pool: np.ndarray, device: str | torch.device = "cpu") -> None:
        self.pool, self.device = pool, torch.device(device)

    @torch.no_grad()
    def __call__(self, queries: Float[Tensor, "B D"], own: Int[Tensor, " B"], count: int) -> Int[Tensor, "B K"]:
        """See ``Search``."""
        _check(self.pool, queries, count)
        blocks = zip(queries.split(QUERY_BLOCK), own.split(QUERY_BLOCK), strict=True)
        found = [self._nearest(block.to(self.device), mine.to(self.device), count) for block, mine in blocks]
        return torch.cat(found).cpu()

    def _nearest(self, queries: Float[Tensor, "B D"], own: Int[Tensor, " B"], count: int) -> Int[Tensor, "B K"]:
        unit = normalize(queries.double(), dim=1)
        best = torch.empty(len(unit), 0, dtype=torch.float64, device=self.device)
        rows = torch.empty(len(unit), 0, dtype=torch.int64, device=self.device)
        step = max(1, CHUNK_VALUES // self.pool.shape[1])
        for start in range(0, len(self.pool), step):
            chunk = torch.from_numpy(self.pool[start : start + step].astype(np.float32)).to(self.device)
            place = _candidates(unit, chunk, own - start, count)
            value = _similarity(unit, chunk[place]).masked_fill(place + start == own.unsqueeze(1), -torch.inf)
            best, rows = torch.cat([best, value], dim=1), torch.cat([rows, place + start], dim=1)
            best, order = best.sort(dim=1, descending=True, stable=True)
            best, rows = best[:, :count], rows.gather(1, order[:, :count])
        return rows


class IVFSearch:
    """Approximate search in a few cells of the pool: a faiss inverted file with one byte per value.

    The candidates it finds are ordered as ``ExactSearch`` orders them; what lies in other cells is missed. The cells
    come from k-means with a fixed seed; another machine's rounding may move a vector to another cell.

    Args:
        pool: float array (N, D), possibly memory-mapped.
        cells: number of cells; None for the square root of N.
        probes: cells looked into per query.
    """

    def __init__(self, pool: np.ndarray, cells: int | None = None, probes: int = 32) -> None:
        try:
            import faiss  # an extra
        except ImportError as error:
            raise ValueError("search='ivf' needs faiss; pip install faiss-cpu, or use search='exact'") from error
        self.pool, dim = pool, pool.shape[1]
        self.cells = cells or max(1, round(len(pool) ** 0.5))
        quantizer = faiss.IndexFlatIP(dim)
        self.index = faiss.IndexIVFScalarQuantizer(
            quantizer, dim, self.cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        self.index.nprobe = min(probes, self.cells)
        sample = np.linspace(0, len(pool) - 1, min(len(pool), 64 * self.cells)).astype(np.int64)
        self.index.train(_unit(pool[sample]).numpy())
        step = max(1, CHUNK_VALUES // dim)
        for start in range(0, len(pool), step):
            self.index.add(_unit(pool[start : start + step]).numpy())

    def __call__(self, queries: Float[Tensor, "B D"], own: Int[Tensor, " B"], count: int) -> Int[Tensor, "B K"]:
        """See ``Search``.

        Raises:
            ValueError: if the cells looked into hold fewer than ``count`` rows.
        """
        _check(self.pool, queries, count)
        unit = normalize(queries.double(), dim=1).cpu()
        nearest = torch.empty(len(unit), count, dtype=torch.int64)
        for place, (query, mine) in enumerate(zip(unit, own.tolist(), strict=True)):
            # One by one: faiss compares many at once with another rounding.
            found = np.unique(self.index.search(query[None].float().numpy(), count + IVF_SPARE)[1][0])
            found = found[(found >= 0) & (found != mine)]
            if len(found) < count:
                raise ValueError(f"expected {count} neighbors, got {len(found)}; raise probes, or lower cells")
            vectors = torch.from_numpy(self.pool[found].astype(np.float32))
            order = _similarity(query[None], vectors[None])[0].sort(descending=True, stable=True).indices
            nearest[place] = torch.from_numpy(found)[order[:count]]
        return nearest


def _candidates(
    unit: Float[Tensor, "B D"], chunk: Float[Tensor, "M D"], own: Int[Tensor, " B"], count: int
) -> Int[Tensor, "B W"]:
    """Return ascending rows of the chunk that include the ``count`` nearest; the row ``own`` may be among them."""
    similarity = unit.float() @ normalize(chunk, dim=1).T
    inside = ((own >= 0) & (own < len(chunk))).nonzero()[:, 0]
    similarity[inside, own[inside]] = -torch.inf
    value, place = similarity.topk(min(count + SPARE, len(chunk)), dim=1)
    width = place.shape[1]
    tied = value[:, -1] >= value[:, min(count, width) - 1] - CLOSE
    if width < len(chunk) and bool(tied.any()):
        exactly = _rounded(unit[tied] @ normalize(chunk.double(), dim=1).T)
        exactly[similarity[tied].isinf()] = -torch.inf
        place[tied] = exactly.sort(dim=1, descending=True, stable=True).indices[:, :width]
    return place.sort(dim=1).values


def _similarity(unit: Float[Tensor, "B D"], vectors: Float[Tensor, "B W D"]) -> Float[Tensor, "B W"]:
    """Compute cosine similarities in float64, rounded so that those of equal vectors are equal."""
    return _rounded((normalize(vectors.double(), dim=2) * unit.unsqueeze(1)).sum(dim=2))


def _rounded(similarity: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    return (similarity * 1e12).round() / 1e12


def _unit(rows: np.ndarray) -> Float[Tensor, "M D"]:
    return normalize(torch.from_numpy(np.asarray(rows, dtype=np.float32)), dim=1)


def _check(pool: np.ndarray, queries: Float[Tensor, "B D"], count: int) -> None:
    if queries.shape[1] != pool.shape[1]:
        raise ValueError(f"expected queries of length {pool.shape[1]}, as the pool's vectors, got {queries.shape[1]}")
    if not 0 < count < len(pool):
        raise ValueError(f"expected a pool of more than {count} images for {count} neighbors, got {len(pool)}")
    if not bool(queries.isfinite().all()):
        raise ValueError("expected finite queries, got NaN or infinity")
