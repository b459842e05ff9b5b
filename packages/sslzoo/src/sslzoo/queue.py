"""The queue of past keys or embeddings.

Shapes: N entries, B new keys, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Queue(nn.Module):
    """A first-in first-out ring buffer; contents and pointer are part of the state dict."""

    keys: Tensor
    ptr: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ptr", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "B D"]) -> None:
        """Overwrite the oldest entries; B need not divide N, and of more than N keys the last N are kept."""
        size = len(self.keys)
        first_kept = max(0, len(keys) - size)
        indices = (self.ptr + torch.arange(first_kept, len(keys), device=keys.device)) % size
        self.keys[indices] = keys[first_kept:].to(self.keys.dtype)
        self.ptr.copy_((self.ptr + len(keys)) % size)
