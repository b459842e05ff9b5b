"""Fitting the foreground direction in one pass over any number of images.

Shapes: n images of a batch (_ in a stream of batches), l tokens of an image (a grid of rows x columns), d token width.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pairquality.pca import ForegroundPCA
from pairquality.sample import UniformSample
from pairquality.threshold import ThresholdRule, threshold_at

SMALL_MARGIN = 0.1
"""Below this many standard deviations between centre and border the orientation is little more than a guess."""


@torch.no_grad()
def fit_pca(
    features: Iterable[Float[Tensor, "_ l d"]],
    share_foreground: float = 0.4,
    *,
    centred: bool = True,
    grid: tuple[int, int] | None = None,
    skip_border: int = 0,
    threshold_rule: ThresholdRule = "quantile",
    sample_bytes: int = 2**30,
    seed: int = 0,
) -> ForegroundPCA:
    """First principal component of all tokens, turned so that the centre of the images is high, and its threshold.

    The covariance is taken in float64, centred over all tokens. The sign of a component means nothing; objects avoid
    the border of images, so it is chosen such that the outermost tokens are lower on average than those inside. The
    threshold is taken over all tokens while they fit in `sample_bytes`, else over a uniform sample of them, which moves
    the share by 0.001 for 240,000 tokens (one standard deviation).

    Reference: GenView, https://arxiv.org/abs/2403.12003, section 3.3; 40% foreground is the paper's choice.

    Args:
        features: batches of token features; read once, so a generator will do.
        share_foreground: share of all tokens above the threshold, in (0, 1).
        centred: projections of x - mean; False gives those of GenView's code, x . v, whose threshold holds mean . v.
        grid: rows and columns of the tokens; square if None.
        skip_border: rings of outermost tokens left out of the direction and of its sign, where zero padding marks them;
            the threshold counts all tokens.
        threshold_rule: "quantile", or "histogram" as in GenView's code (there with a share of 0.35).
        sample_bytes: memory for the threshold's sample.
        seed: of that sample.

    Raises:
        ValueError: no tokens, tokens of changing or unfit shape, NaN or constant tokens, share outside (0, 1).

    Warns:
        UserWarning: centre and border hardly differ, so that the sign is uncertain.
    """
    if not 0 < share_foreground < 1:
        raise ValueError(f"share_foreground = {share_foreground}: give a share between 0 and 1, such as 0.4.")
    moments, sample = None, None
    for batch in features:
        if moments is None or sample is None:
            moments = _TokenMoments(batch, grid, skip_border)
            sample = UniformSample(max(2, sample_bytes // (4 * batch.shape[2])), batch.shape[2], seed)
        moments.add(batch)
        sample.add(batch.flatten(0, 1))
    if moments is None or sample is None:
        raise ValueError("No features to fit: the iterable gave no batch.")
    direction, margin = moments.first_component()
    if abs(margin) < SMALL_MARGIN:
        warnings.warn(
            f"The image centre differs from the border by only {abs(margin):.3f} standard deviations of the first "
            "component: which side is foreground is uncertain. Look at some maps.",
            stacklevel=2,
        )
    pca = ForegroundPCA(
        direction=(direction if margin >= 0 else -direction).float(),
        mean=moments.mean.cpu().float(),
        threshold=math.nan,
        margin=abs(margin),
        centred=centred,
        share_foreground=share_foreground,
    )
    projections = pca.project(sample.rows[None])[0]
    return replace(pca, threshold=threshold_at(projections, share_foreground, threshold_rule))


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


class _TokenMoments:
    """Mean and scatter of a stream of tokens, and the mean at each place of the grid; float64."""

    def __init__(self, batch: Float[Tensor, "n l d"], grid: tuple[int, int] | None, skip_border: int) -> None:
        self._shape, device = batch.shape[1:], batch.device
        rings = token_rings(batch.shape[1], grid)
        self._border, self._centre = rings == skip_border, rings > skip_border
        if skip_border < 0 or not self._centre.any():
            raise ValueError(f"skip_border = {skip_border} leaves no centre inside the border of {len(rings)} tokens.")
        self._used = (self._border | self._centre).to(device)
        self._count = 0
        self.mean: Float64[Tensor, " d"] = torch.zeros(self._shape[1], dtype=torch.float64, device=device)
        self._scatter = torch.zeros(self._shape[1], self._shape[1], dtype=torch.float64, device=device)
        self._sums = torch.zeros(self._shape, dtype=torch.float64, device=device)
        self._images = 0

    def add(self, batch: Float[Tensor, "n l d"]) -> None:
        """Merges a batch by Chan's update: exact however large the mean is beside the deviation."""
        if batch.shape[1:] != self._shape:
            shapes = f"{list(batch.shape[1:])} after {list(self._shape)}"
            raise ValueError(f"Tokens of shape {shapes}: bring all images to one size first.")
        tokens = batch[:, self._used].flatten(0, 1).double()
        total = self._count + len(tokens)
        centre = tokens.mean(dim=0)
        shift = centre - self.mean
        tokens -= centre
        self._scatter += tokens.T @ tokens + torch.outer(shift, shift) * (self._count * len(tokens) / total)
        self.mean += shift * (len(tokens) / total)
        self._count = total
        self._sums += batch.sum(dim=0, dtype=torch.float64)
        self._images += len(batch)

    def first_component(self) -> tuple[Float64[Tensor, " d"], float]:
        """The direction of the largest variance, on the CPU, and how far the centre is above the border along it.

        The distance is in standard deviations, negative where the direction should be turned.
        """
        covariance = (self._scatter / max(self._count - 1, 1)).cpu()
        if not covariance.isfinite().all():
            raise ValueError("Features hold NaN or infinite values: check the encoder's weights and its precision.")
        variances, directions = torch.linalg.eigh(covariance)
        if variances[-1] <= 0:
            raise ValueError("All tokens are the same: there is no component to find; give features of real images.")
        direction = directions[:, -1].clone()
        places = (self._sums / self._images).cpu()
        difference = places[self._centre].mean(dim=0) - places[self._border].mean(dim=0)
        return direction, float(difference @ direction) / math.sqrt(float(variances[-1]))
