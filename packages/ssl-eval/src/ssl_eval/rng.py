"""Independent random streams, by seed and purpose."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """Return an independent generator for each purpose of a seed."""
    digest = hashlib.blake2b(f"linear probe/{seed}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def rng_scope(seed: int, purpose: str, device: str | torch.device) -> Iterator[None]:
    """Seed torch's global generators by seed and purpose, and restore their state afterwards."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seeded_generator(seed, purpose).initial_seed())
        yield
