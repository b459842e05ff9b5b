"""Statistics that `fit_pca` collects in one pass over a stream of tokens: moments, a uniform sample, a threshold.

Shapes: n images (or rows) of a batch, l tokens of an image, d token width, m rows kept, t tokens.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(kw_only=True)
class RunningMoments:
    """Moments of a stream of tokens in float64.

    Attributes:
        count: number of tokens.
        mean: mean of the tokens.
        scatter: sum of the outer products of the centered tokens.
        images: number of images.
        places: sum of the tokens at each position of the grid.
    """

    count: int
    mean: Float64[Tensor, " d"]
    scatter: Float64[Tensor, "d d"]
    images: int
    places: Float64[Tensor, "l d"]

    def merge(self, other: "RunningMoments") -> None:
        """Add another stream by Chan's update, which is accurate even if the mean is much larger than the deviation."""
        total = self.count + other.count
        shift = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(shift, shift) * (self.count * other.count / total)
        self.mean += shift * (other.count / total)
        self.places += other.places
        self.count, self.images = total, self.images + other.images

    def cpu(self) -> "RunningMoments":
        """Return a copy on the CPU."""
        mean, scatter, places = self.mean.cpu(), self.scatter.cpu(), self.places.cpu()
        return RunningMoments(count=self.count, mean=mean, scatter=scatter, images=self.images, places=places)


class TokenMoments:
    """Mean and scatter of a stream of tokens, and the mean at each position of the grid.

    Args:
        batch: first batch of the stream, for its shape and device; it is not added.
        grid: numbers of rows and columns of tokens; by default a square.
        skip_border: rings of outermost tokens to exclude.

    Raises:
        ValueError: the tokens do not fill the grid, or none is left inside the border.
    """

    def __init__(self, batch: Float[Tensor, "n l d"], grid: tuple[int, int] | None, skip_border: int) -> None:
        tokens, width = batch.shape[1:]
        rings = token_rings(tokens, grid)
        self._border, self._centre = rings == skip_border, rings > skip_border
        if skip_border < 0 or not self._centre.any():
            left = f"expected tokens inside the border, got none of {tokens} with skip_border {skip_border}"
            raise ValueError(f"{left}; give larger images")
        self._used = (self._border | self._centre).to(batch.device)
        mean, scatter, places = (
            torch.zeros(shape, dtype=torch.float64, device=batch.device)
            for shape in ((width,), (width, width), (tokens, width))
        )
        self.sums = RunningMoments(count=0, mean=mean, scatter=scatter, images=0, places=places)

    def add(self, batch: Float[Tensor, "n l d"]) -> None:
        """Add a batch.

        Raises:
            ValueError: number or width of its tokens differ from those before.
        """
        if batch.shape[1:] != self.sums.places.shape:
            shapes = f"{list(batch.shape[1:])} after {list(self.sums.places.shape)}"
            raise ValueError(f"expected tokens of one shape, got {shapes}; resize all images to one size")
        if not len(batch):
            return
        tokens = batch[:, self._used].flatten(0, 1).double()
        mean = tokens.mean(dim=0)
        tokens -= mean
        places = batch.sum(dim=0, dtype=torch.float64)
        count = len(tokens)
        self.sums.merge(
            RunningMoments(count=count, mean=mean, scatter=tokens.T @ tokens, images=len(batch), places=places)
        )

    def cpu(self) -> "TokenMoments":
        """Return a copy on the CPU."""
        found = copy.copy(self)
        found._used, found.sums = self._used.cpu(), self.sums.cpu()
        return found

    def first_component(self) -> tuple[Float64[Tensor, " d"], float]:
        """Return the direction of largest variance, on the CPU, and the margin of the center over the border along it.

        The margin is in standard deviations; if it is negative, the direction should be flipped.

        Raises:
            ValueError: the values are not finite, or all tokens are equal.
        """
        covariance = (self.sums.scatter / max(self.sums.count - 1, 1)).cpu()
        if not covariance.isfinite().all():
            raise ValueError("expected finite features, got NaN or infinity; check the encoder's weights and precision")
        variances, directions = torch.linalg.eigh(covariance)
        if variances[-1] <= 0:
            raise ValueError("expected tokens that vary, got equal ones; give features of real images")
        direction = directions[:, -1].clone()
        places = (self.sums.places / self.sums.images).cpu()
        difference = places[self._centre].mean(dim=0) - places[self._border].mean(dim=0)
        return direction, float(difference @ direction) / math.sqrt(float(variances[-1]))


def merged(parts: Sequence[RunningMoments]) -> RunningMoments:
    """Merge the moments of several streams in their order."""
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


def token_rings(tokens: int, grid: tuple[int, int] | None) -> Int[Tensor, " l"]:
    """Return the distance of each token of a grid from the border: 0 for the outermost ring, 1 for the next.

    Raises:
        ValueError: the grid does not have that many tokens.
    """
    rows, columns = grid if grid is not None else (math.isqrt(tokens), math.isqrt(tokens))
    if rows * columns != tokens:
        raise ValueError(f"expected {rows} x {columns} tokens, got {tokens}; give grid=(rows, columns)")
    down, across = torch.arange(rows), torch.arange(columns)
    vertical, horizontal = torch.minimum(down, rows - 1 - down), torch.minimum(across, columns - 1 - across)
    return torch.minimum(vertical[:, None], horizontal[None, :]).flatten()


class UniformSample:
    """A uniform sample of the rows of a stream; all rows while they fit.

    Each row draws a random number, and the rows with the smallest numbers are kept. The sample thus depends on the seed
    and the order of the rows, not on how the stream is split into batches.
    """

    def __init__(self, capacity: int, width: int, seed: int, *, stream: int = 0) -> None:
        """Keep at most `capacity` rows of `width` floats on the CPU; each `stream` draws different numbers."""
        digest = hashlib.blake2b(f"uniform sample/{seed}/{stream}".encode(), digest_size=8).digest()
        self._generator = np.random.default_rng(int.from_bytes(digest, "big"))
        self._rows = torch.empty(capacity, width)
        self._keys = torch.empty(capacity, dtype=torch.float64)
        self._size = 0

    @property
    def rows(self) -> Float[Tensor, "m d"]:
        """Return the rows kept so far, in no particular order."""
        return self._rows[: self._size]

    @property
    def keys(self) -> Float64[Tensor, " m"]:
        """Return the numbers drawn by the kept rows; the smallest of several streams make a uniform sample of all."""
        return self._keys[: self._size]

    @property
    def capacity(self) -> int:
        """Return the maximum number of rows."""
        return len(self._keys)

    def add(self, rows: Float[Tensor, "n d"]) -> None:
        """Add the next rows of the stream."""
        keys = torch.from_numpy(self._generator.random(len(rows)))
        filling = min(len(rows), len(self._keys) - self._size)
        places = slice(self._size, self._size + filling)
        self._rows[places], self._keys[places] = rows[:filling].cpu().float(), keys[:filling]
        self._size += filling
        if filling < len(rows):
            self._replace(rows[filling:], keys[filling:])

    def _replace(self, rows: Float[Tensor, "n d"], keys: Float[Tensor, " n"]) -> None:
        """Replace kept rows that drew larger numbers by new rows that drew smaller ones."""
        capacity = len(self._keys)
        stays = torch.zeros(capacity + len(keys), dtype=torch.bool)
        stays[torch.cat([self._keys, keys]).topk(capacity, largest=False).indices] = True
        leaving = (~stays[:capacity]).nonzero().squeeze(1)
        coming = stays[capacity:].nonzero().squeeze(1)
        self._rows[leaving] = rows[coming.to(rows.device)].cpu().float()
        self._keys[leaving] = keys[coming]


HISTOGRAM_BINS = 200
"""The value in tools/clip_pca/extract_features_pca.py of https://github.com/xiaojieli0903/genview."""

ThresholdRule = Literal["quantile", "histogram"]


def threshold_at(projections: Float[Tensor, " t"], share: float, rule: ThresholdRule) -> float:
    """Return the threshold above which a fraction ``share`` of the tokens lies, by one of two rules."""
    rules = {"quantile": quantile_threshold, "histogram": histogram_threshold}
    if rule not in rules:
        raise ValueError(f"expected threshold_rule 'quantile' or 'histogram', got {rule!r}; give one of them")
    return rules[rule](projections, share)


def quantile_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """Return the midpoint of the smallest foreground and the largest background projection; exact to one token."""
    ordered = projections.double().sort(descending=True).values
    foreground = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return float(ordered[foreground - 1] + ordered[foreground]) / 2


def histogram_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """Return the threshold of GenView's code: the left edge of the first of 200 bins up to which 1 - share tokens lie.

    If empty bins follow that bin, the edge of the last of them is used. GenView's code has share 0.35.
    """
    counts, edges = np.histogram(projections.cpu().numpy(), bins=HISTOGRAM_BINS)
    cumulative = np.cumsum(counts) / counts.sum()
    reached = cumulative[np.searchsorted(cumulative, 1 - share)]
    return float(edges[np.searchsorted(cumulative, reached, side="right") - 1])
