"""What a network draws while it is made or trained, by name."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssl_eval.softmax_regression import stream


@contextmanager
def drawing(seed: int, purpose: str, device: str | torch.device) -> Iterator[None]:
    """Inside, what is drawn depends on these alone; outside, nobody sees that anything was."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(stream(seed, purpose).initial_seed())
        yield
