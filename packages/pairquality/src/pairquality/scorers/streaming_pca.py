"""First principal component of the tokens of a network in training: old tokens decay, the sign is kept.

Shapes: n images, l tokens of an image, d token width.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Float64
from torch import Tensor

from genviews_core.distributed import all_reduce_sum
from pairquality.fit import SMALL_MARGIN
from pairquality.foreground import ForegroundPCA
from pairquality.token_statistics import token_rings


class StreamingPCA:
    """First component of an exponential moving average of mean and covariance, in float64.

    The k-th update has weight max(1 - decay, 1 / k): a plain mean at first, later one over about 1 / (1 - decay)
    updates. The first component is computed by a full decomposition once, and then by a few power iterations from its
    previous value, which cannot flip it. It is oriented from border to center, as in `fit_pca`, and flipped later only
    if the border rises above the center by 0.1 standard deviations, since the first orientation may be unreliable.

    Args:
        decay: weight of the previous statistics in an update.
        iterations: power iterations per update.
        skip_border: rings of outermost tokens to exclude; by default 1 on grids of at least 7 x 7, else 0.
        group: processes that each see some of the images; they get the same component. All must call.

    Attributes:
        pca: the component as a ForegroundPCA, after the first update.
    """

    pca: ForegroundPCA

    def __init__(
        self,
        *,
        decay: float = 0.9,
        iterations: int = 8,
        skip_border: int | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.decay, self.iterations, self.skip_border, self.group = decay, iterations, skip_border, group
        self.updates = 0
        self._moments: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, tokens: Float[Tensor, "n l d"]) -> None:
        """Update the component with the tokens of some images.

        Raises:
            ValueError: the map has no tokens inside its border, or contains NaN.
        """
        center, border = self._rings(tokens)
        if not self.updates:
            self._moments = _nothing(tokens)
        self.updates += 1
        self._absorb(tokens.double(), center | border)
        moments = self._moments
        if not moments["covariance"].isfinite().all():
            raise ValueError("expected finite feature maps, got NaN or infinity; try a lower learning rate")
        direction = moments["direction"]
        if self.updates == 1:
            direction = torch.linalg.eigh(moments["covariance"]).eigenvectors[:, -1].contiguous()
        else:
            for _ in range(self.iterations):
                direction = torch.nn.functional.normalize(moments["covariance"] @ direction, dim=0)
        margin = self._margin(direction, center, border)
        if margin < (0 if self.updates == 1 else -SMALL_MARGIN):
            direction, margin = -direction, -margin
        moments["direction"] = direction
        self._publish(margin)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that later components depend on."""
        return {"updates": self.updates, "margin": self.pca.margin if self.updates else 0.0, **self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; later components are bit-identical. The next update moves it to the tokens' device."""
        self._moments = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        self.updates = state["updates"]
        if self.updates:
            self._publish(state["margin"])

    def _rings(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return which positions of the grid are center, and which are border."""
        rings = token_rings(tokens.shape[1], None)
        skip = self.skip_border
        if skip is None:
            skip = int(int(rings.max()) >= 3)
        if not (rings > skip).any():
            side = math.isqrt(len(rings))
            raise ValueError(f"expected tokens inside the border, got a map of {side} x {side}; use an earlier layer")
        return (rings > skip).to(tokens.device), (rings == skip).to(tokens.device)

    def _absorb(self, tokens: Float64[Tensor, "n l d"], used: Tensor) -> None:
        moments = {name: value.to(tokens.device) for name, value in self._moments.items()}
        count, shift, scatter, places = self._sums(tokens, used, moments["mean"])
        shift, scatter, places = shift / count, scatter / count, places / (count / used.sum())
        rate = max(1 - self.decay, 1 / self.updates)
        moments["covariance"].mul_(1 - rate).add_(scatter, alpha=rate).addr_(shift, shift, alpha=-(rate**2))
        moments["mean"].add_(shift, alpha=rate)
        moments["places"].lerp_(places, rate)
        self._moments = moments

    def _sums(self, tokens: Tensor, used: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return count, sum and outer products of tokens minus an origin, and sums by position, over all processes."""
        inside = (tokens[:, used] - origin).flatten(0, 1)
        count = inside.new_tensor([len(inside)])
        parts = [count, inside.sum(dim=0), inside.T @ inside, tokens.sum(dim=0)]
        if self.group is not None:
            flat = all_reduce_sum(torch.cat([part.flatten() for part in parts]), self.group)
            sizes = [part.numel() for part in parts]
            parts = [part.view_as(old) for part, old in zip(flat.split(sizes), parts, strict=True)]
        return parts[0], parts[1], parts[2], parts[3]

    def _margin(self, direction: Tensor, center: Tensor, border: Tensor) -> float:
        """Return the margin of the center over the border, in standard deviations along the direction."""
        places = self._moments["places"]
        difference = places[center].mean(dim=0) - places[border].mean(dim=0)
        variance = direction @ self._moments["covariance"] @ direction
        return float(difference @ direction / variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt())

    def _publish(self, margin: float) -> None:
        direction, mean = (self._moments[name].float() for name in ("direction", "mean"))
        self.pca = ForegroundPCA(
            direction=direction, mean=mean, threshold=math.nan, margin=margin, centered=True, share_foreground=math.nan
        )


def _nothing(tokens: Tensor) -> dict[str, Tensor]:
    count, width = tokens.shape[1:]
    shapes = {"mean": (width,), "covariance": (width, width), "places": (count, width), "direction": (width,)}
    return {name: torch.zeros(shape, dtype=torch.float64, device=tokens.device) for name, shape in shapes.items()}
