"""Whether a network is still made of numbers."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; one look at the device for all of them."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not floating:
        return True
    largest = torch._foreach_norm(floating, torch.inf)
    return bool(torch.stack([norm.float() for norm in largest]).isfinite().all())


def first_not_finite(module: nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds a NaN or an infinity."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return next((name for name, tensor in named if not all_finite([tensor])), None)
