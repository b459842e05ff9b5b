"""The first principal component of tokens whose network is learning: old tokens are forgotten, the sign is kept.

Shapes: n images, l tokens of an image, d token width.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Float64
from torch import Tensor

from pairquality.fit import SMALL_MARGIN
from pairquality.foreground import ForegroundPCA
from pairquality.token_statistics import token_rings


class StreamingPCA:
    """Exponentially forgotten mean and covariance in float64, and their first component.

    The k-th update has rate max(1 - decay, 1 / k): a plain mean at first, later a memory of 1 / (1 - decay) updates.
    The component comes from a full decomposition once, afterwards from a few power iterations that start where it was,
    which can never turn it round. It points from border to center, as in `fit_pca`, and is turned again only where the
    border rises above the center by 0.1 standard deviations: early in training the rule may have had little to go by.

    Args:
        decay: what an update leaves of the statistics.
        iterations: of the power method, per update.
        skip_border: rings of outermost tokens left out; None: 1 on grids of 7 x 7 and more, where zero padding shows.
        group: processes that see a part of the images each; they get the same component. All must call.

    Attributes:
        pca: the component, after the first update.
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
        """Take some images' tokens into account.

        Raises:
            ValueError: the map has no center inside its border, or it holds NaN.
        """
        center, border = self._rings(tokens)
        if not self.updates:
            self._moments = _nothing(tokens)
        self.updates += 1
        self._absorb(tokens.double(), center | border)
        moments = self._moments
        if not moments["covariance"].isfinite().all():
            raise ValueError("The feature maps hold NaN or infinite values: try a lower learning rate.")
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
        """All that later components depend on."""
        return {"updates": self.updates, "margin": self.pca.margin if self.updates else 0.0, **self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there, to the bit; the first update moves it to the tokens' device."""
        self._moments = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        self.updates = state["updates"]
        if self.updates:
            self._publish(state["margin"])

    def _rings(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Which places of the grid are center, and which border."""
        rings = token_rings(tokens.shape[1], None)
        skip = self.skip_border
        if skip is None:
            skip = int(int(rings.max()) >= 3)
        if not (rings > skip).any():
            side = math.isqrt(len(rings))
            raise ValueError(f"A map of {side} x {side} tokens has no center inside its border: take an earlier layer.")
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
        """Count, sum and outer products of the tokens less an origin, and sums by place, over all processes."""
        inside = (tokens[:, used] - origin).flatten(0, 1)
        count = inside.new_tensor([len(inside)])
        parts = [count, inside.sum(dim=0), inside.T @ inside, tokens.sum(dim=0)]
        if self.group is not None:
            flat = torch.cat([part.flatten() for part in parts])
            dist.all_reduce(flat, group=self.group)
            sizes = [part.numel() for part in parts]
            parts = [part.view_as(old) for part, old in zip(flat.split(sizes), parts, strict=True)]
        return parts[0], parts[1], parts[2], parts[3]

    def _margin(self, direction: Tensor, center: Tensor, border: Tensor) -> float:
        """How far the center lies above the border, in standard deviations along the direction."""
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
