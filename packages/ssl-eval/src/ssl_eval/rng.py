"""Independent random streams, by seed and purpose."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """An independent generator for each use of a seed."""
    digest = hashlib.blake2b(f"linear probe/{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def rng_scope(seed: int, purpose: str, device: str | torch.device) -> Iterator[None]:
    """Inside, what is drawn depends on these alone; outside, nobody sees that anything was."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seeded_generator(seed, purpose).initial_seed())
        yield
