"""Seeds derived from names, so that random numbers do not depend on batch, worker, order or restart."""

from hashlib import blake2b

import torch

SEED_BITS = 63  # fits a signed 64-bit column of the manifest and torch.Generator.manual_seed


def stable_seed(*parts: int | str) -> int:
    """Hash names and numbers to a seed: the same on every machine, in every process.

    Args:
        parts: purpose of the draw, for example ``(seed, "noise", step)``.

    Returns:
        An integer in [0, 2**63).
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        encoded = str(part).encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest(), "big") >> (64 - SEED_BITS)


def view_seed(seed: int, key: str, k: int) -> int:
    """Return the seed of view ``k`` of the image ``key`` in a run with ``seed``."""
    return stable_seed(seed, key, k)


def generator_for(*parts: int | str) -> torch.Generator:
    """Create a CPU generator seeded with ``stable_seed(*parts)``."""
    return torch.Generator().manual_seed(stable_seed(*parts))
