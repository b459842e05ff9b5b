"""Statistics of embeddings and weights that reveal collapse and non-finite values.

Shapes: N samples, D features.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

RANKME_EPSILON = 1e-7
"""https://arxiv.org/abs/2210.02885 eq. 1, for float32."""


@torch.no_grad()
def embedding_std(embeddings: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the mean standard deviation of L2-normalized embeddings times sqrt(D): 1 on a sphere, 0 if collapsed.

    https://arxiv.org/abs/2011.10566 section 4.1.
    """
    normalized = functional.normalize(embeddings.float(), dim=1)
    return normalized.std(dim=0, correction=0).mean() * normalized.shape[1] ** 0.5


@torch.no_grad()
def effective_rank(features: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return exp(-sum_k p_k log p_k), p_k = s_k / sum_j s_j + eps, of the singular values s: from 1 to min(N, D).

    Roy and Vetterli, "The effective rank", EUSIPCO 2007; as RankMe (https://arxiv.org/abs/2210.02885 eq. 1) measures
    self-supervised encoders: of uncentered features. It grows with N, so only values of equal sample counts are
    comparable. The singular values are computed as square roots of the eigenvalues of the smaller Gram matrix, in
    float64.
    """
    rows = features.double()
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    fraction = singular / singular.sum().clamp(min=torch.finfo(singular.dtype).tiny) + RANKME_EPSILON
    return torch.special.entr(fraction).sum().exp().float()


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no tensor holds NaN or infinity, with a single device synchronization for all tensors."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    largest = torch._foreach_norm(floating, torch.inf)
    return bool(torch.stack([norm.float() for norm in largest]).isfinite().all())


def first_nonfinite(module: nn.Module) -> str | None:
    """Return the name of the first parameter or buffer with NaN or infinity, or None."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return next((name for name, tensor in named if not all_finite([tensor])), None)
