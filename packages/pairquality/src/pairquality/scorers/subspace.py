"""The part of token space that scores live in: what a small network need reproduce.

Shapes: n views, l tokens of a view, d token width, k width of the subspace.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pairquality.foreground import foreground_maps
from pairquality.pca import ForegroundPCA
from pairquality.score import EPSILON


@dataclass(frozen=True, kw_only=True, eq=False)
class Subspace:
    """An orthonormal basis: the foreground direction, then the main directions of foreground and background vectors.

    Cosines are of z_f and z_b, not of their deviations from a mean, so the basis is that of the uncentred second
    moments: no other k directions keep the inner products as well on average.

    Attributes:
        basis: its rows.
        kept: share of the vectors' squared length that lies in it.
    """

    basis: Float[Tensor, "k d"]
    kept: float

    def project(self, tokens: Float[Tensor, "n l d"]) -> Float[Tensor, "n l k"]:
        """Coordinates of tokens."""
        return tokens.float() @ self.basis.to(tokens.device).T

    def project_pca(self, pca: ForegroundPCA) -> ForegroundPCA:
        """The same direction there: projections of tokens stay what they are."""
        direction, mean = pca.direction.cpu(), pca.mean.cpu()
        return replace(pca, direction=self.basis @ direction, mean=self.basis @ mean, fitted_on=None)


@torch.no_grad()
def fit_subspace(pca: ForegroundPCA, tokens: Float[Tensor, "n l d"], width: int) -> Subspace:
    """The best k directions for these views, at most `width`, by an exact decomposition in float64."""
    vectors = torch.cat(pooled(tokens.float(), foreground_maps(pca, tokens.float()))).double()
    direction = pca.direction.double().to(tokens.device)
    rest = vectors - torch.outer(vectors @ direction, direction)
    found = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)[:, : min(width, len(direction)) - 1].T
    basis = torch.linalg.qr(torch.cat([direction[None], found]).T).Q.T
    kept = (vectors @ basis.T).square().sum() / vectors.square().sum()
    return Subspace(basis=basis.float().cpu(), kept=float(kept))


def pooled(
    tokens: Float[Tensor, "n l d"], maps: Float[Tensor, "n l"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """z_f and z_b: means of the tokens weighted by the map and by its complement."""
    shares = torch.stack([maps, 1 - maps], dim=1)
    shares = shares / (shares.sum(dim=2, keepdim=True) + EPSILON)
    found = shares @ tokens
    return found[:, 0], found[:, 1]
