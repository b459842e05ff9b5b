"""The queue of past keys that serve as negatives.

Shapes: N places, B new keys, D dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Queue(nn.Module):
    """First in, first out; a ring whose place and contents are buffers, so that state_dict resumes it."""

    keys: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "B D"]) -> None:
        """Overwrite the oldest; any B, also one that does not divide N or exceeds it (then the last N stay)."""
        size = len(self.keys)
        first_kept = max(0, len(keys) - size)
        places = (self.place + torch.arange(first_kept, len(keys), device=keys.device)) % size
        self.keys[places] = keys[first_kept:].to(self.keys.dtype)
        self.place.copy_((self.place + len(keys)) % size)
