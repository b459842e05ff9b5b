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
    """What a stream of tokens leaves behind; float64.

    Attributes:
        count: tokens.
        mean: of the tokens.
        scatter: sum of outer products of the tokens less their mean.
        images: images.
        places: sums at each place of the grid.
    """

    count: int
    mean: Float64[Tensor, " d"]
    scatter: Float64[Tensor, "d d"]
    images: int
    places: Float64[Tensor, "l d"]

    def merge(self, other: "RunningMoments") -> None:
        """Adds another stream by Chan's update: exact however large the mean is beside the deviation."""
        total = self.count + other.count
        shift = other.mean - self.mean
        self.scatter += other.scatter + torch.outer(shift, shift) * (self.count * other.count / total)
        self.mean += shift * (other.count / total)
        self.places += other.places
        self.count, self.images = total, self.images + other.images

    def cpu(self) -> "RunningMoments":
        """A copy on the CPU."""
        mean, scatter, places = self.mean.cpu(), self.scatter.cpu(), self.places.cpu()
        return RunningMoments(count=self.count, mean=mean, scatter=scatter, images=self.images, places=places)


class TokenMoments:
    """Mean and scatter of a stream of tokens, and the mean at each place of the grid.

    Args:
        batch: the first of the stream, for its shape and device; not added.
        grid: rows and columns of its tokens; square if None.
        skip_border: rings of outermost tokens left out.

    Raises:
        ValueError: the grid has not that many tokens, or nothing is left inside the border.
    """

    def __init__(self, batch: Float[Tensor, "n l d"], grid: tuple[int, int] | None, skip_border: int) -> None:
        tokens, width = batch.shape[1:]
        rings = token_rings(tokens, grid)
        self._border, self._centre = rings == skip_border, rings > skip_border
        if skip_border < 0 or not self._centre.any():
            left = f"skip_border = {skip_border} leaves no center inside the border of {tokens} tokens"
            raise ValueError(f"{left}: give larger images.")
        self._used = (self._border | self._centre).to(batch.device)
        mean, scatter, places = (
            torch.zeros(shape, dtype=torch.float64, device=batch.device)
            for shape in ((width,), (width, width), (tokens, width))
        )
        self.sums = RunningMoments(count=0, mean=mean, scatter=scatter, images=0, places=places)

    def add(self, batch: Float[Tensor, "n l d"]) -> None:
        """Takes the next batch.

        Raises:
            ValueError: its tokens are more or wider than those before.
        """
        if batch.shape[1:] != self.sums.places.shape:
            shapes = f"{list(batch.shape[1:])} after {list(self.sums.places.shape)}"
            raise ValueError(f"Tokens of shape {shapes}: bring all images to one size first.")
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
        """A copy on the CPU."""
        found = copy.copy(self)
        found._used, found.sums = self._used.cpu(), self.sums.cpu()
        return found

    def first_component(self) -> tuple[Float64[Tensor, " d"], float]:
        """The direction of the largest variance, on the CPU, and how far the center is above the border along it.

        The distance is in standard deviations, negative where the direction should be turned.

        Raises:
            ValueError: values that are not finite, or tokens that are all the same.
        """
        covariance = (self.sums.scatter / max(self.sums.count - 1, 1)).cpu()
        if not covariance.isfinite().all():
            raise ValueError("Features hold NaN or infinite values: check the encoder's weights and its precision.")
        variances, directions = torch.linalg.eigh(covariance)
        if variances[-1] <= 0:
            raise ValueError("All tokens are the same: there is no component to find; give features of real images.")
        direction = directions[:, -1].clone()
        places = (self.sums.places / self.sums.images).cpu()
        difference = places[self._centre].mean(dim=0) - places[self._border].mean(dim=0)
        return direction, float(difference @ direction) / math.sqrt(float(variances[-1]))


def merged(parts: Sequence[RunningMoments]) -> RunningMoments:
    """The sums of several streams together, merged in their order."""
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


def token_rings(tokens: int, grid: tuple[int, int] | None) -> Int[Tensor, " l"]:
    """How far each token of a grid lies from the border: 0 for the outermost ring, 1 for the next.

    Raises:
        ValueError: the grid does not have that many tokens.
    """
    rows, columns = grid if grid is not None else (math.isqrt(tokens), math.isqrt(tokens))
    if rows * columns != tokens:
        raise ValueError(f"{tokens} tokens do not fill a grid of {rows} x {columns}: give grid=(rows, columns).")
    down, across = torch.arange(rows), torch.arange(columns)
    vertical, horizontal = torch.minimum(down, rows - 1 - down), torch.minimum(across, columns - 1 - across)
    return torch.minimum(vertical[:, None], horizontal[None, :]).flatten()


class UniformSample:
    """Rows of a stream, each subset of the given size equally likely; all of them while they fit.

    Every row draws a number, and the rows with the smallest numbers stay. So the sample depends on the seed and on the
    rows' order in the stream, not on how the stream is cut into batches.
    """

    def __init__(self, capacity: int, width: int, seed: int, *, stream: int = 0) -> None:
        """Keeps at most `capacity` rows of `width` floats, on the CPU; streams draw numbers of their own."""
        digest = hashlib.blake2b(f"uniform sample/{seed}/{stream}".encode(), digest_size=8).digest()
        self._generator = np.random.default_rng(int.from_bytes(digest, "big"))
        self._rows = torch.empty(capacity, width)
        self._keys = torch.empty(capacity, dtype=torch.float64)
        self._size = 0

    @property
    def rows(self) -> Float[Tensor, "m d"]:
        """The rows kept so far, in no particular order."""
        return self._rows[: self._size]

    @property
    def keys(self) -> Float64[Tensor, " m"]:
        """The numbers that the kept rows drew; over several streams, the smallest of all make a uniform sample."""
        return self._keys[: self._size]

    @property
    def capacity(self) -> int:
        """How many rows it can keep."""
        return len(self._keys)

    def add(self, rows: Float[Tensor, "n d"]) -> None:
        """Lets the next rows of the stream take part."""
        keys = torch.from_numpy(self._generator.random(len(rows)))
        filling = min(len(rows), len(self._keys) - self._size)
        places = slice(self._size, self._size + filling)
        self._rows[places], self._keys[places] = rows[:filling].cpu().float(), keys[:filling]
        self._size += filling
        if filling < len(rows):
            self._replace(rows[filling:], keys[filling:])

    def _replace(self, rows: Float[Tensor, "n d"], keys: Float[Tensor, " n"]) -> None:
        """Puts the rows with smaller numbers in the place of those with larger ones."""
        capacity = len(self._keys)
        stays = torch.zeros(capacity + len(keys), dtype=torch.bool)
        stays[torch.cat([self._keys, keys]).topk(capacity, largest=False).indices] = True
        leaving = (~stays[:capacity]).nonzero().squeeze(1)
        coming = stays[capacity:].nonzero().squeeze(1)
        self._rows[leaving] = rows[coming.to(rows.device)].cpu().float()
        self._keys[leaving] = keys[coming]


HISTOGRAM_BINS = 200
"""As tools/clip_pca/extract_features_pca.py of https://github.com/xiaojieli0903/genview."""

ThresholdRule = Literal["quantile", "histogram"]


def threshold_at(projections: Float[Tensor, " t"], share: float, rule: ThresholdRule) -> float:
    """The threshold by one of the two rules."""
    rules = {"quantile": quantile_threshold, "histogram": histogram_threshold}
    if rule not in rules:
        raise ValueError(f'threshold_rule = {rule!r}: give "quantile" or "histogram".')
    return rules[rule](projections, share)


def quantile_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """Halfway between the least foreground and the greatest background projection; right to one token."""
    ordered = projections.double().sort(descending=True).values
    foreground = min(max(round(share * len(ordered)), 1), len(ordered) - 1)
    return float(ordered[foreground - 1] + ordered[foreground]) / 2


def histogram_threshold(projections: Float[Tensor, " t"], share: float) -> float:
    """GenView's code: the left edge of the first of 200 bins up to which 1 - share of the tokens lie.

    Where empty bins follow that bin, the edge of the last of them. The code's share is 0.35.
    """
    counts, edges = np.histogram(projections.cpu().numpy(), bins=HISTOGRAM_BINS)
    cumulative = np.cumsum(counts) / counts.sum()
    reached = cumulative[np.searchsorted(cumulative, 1 - share)]
    return float(edges[np.searchsorted(cumulative, reached, side="right") - 1])
