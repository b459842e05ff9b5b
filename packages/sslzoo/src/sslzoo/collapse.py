"""How near a representation is to collapse.

Shapes: N samples, D features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.methods.method import spread

__all__ = ["effective_rank", "spread"]

RANKME_EPSILON = 1e-7
"""https://arxiv.org/abs/2210.02885 eq. 1, for float32."""


@torch.no_grad()
def effective_rank(features: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """exp(-sum_k p_k log p_k), p_k = s_k / sum_j s_j + eps, of the singular values s: between 1 and min(N, D).

    Roy and Vetterli, "The effective rank", EUSIPCO 2007; as RankMe (https://arxiv.org/abs/2210.02885 eq. 1) measures
    self-supervised encoders: of the features as they are, not centred. It grows with N, so that only values of equally
    many samples compare. The singular values are the roots of the eigenvalues of the smaller Gram matrix, in float64.
    """
    rows = features.double()
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + RANKME_EPSILON
    return torch.special.entr(share).sum().exp().float()
