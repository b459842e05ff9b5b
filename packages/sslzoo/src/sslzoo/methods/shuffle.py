"""Shuffling a batch across ranks, so that per-rank batch norm cannot tell which key belongs to which query.

Shapes: B samples per rank, H x W pixels.
"""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslzoo.gather import gather, rank, world_size


def permutation(count: int, seed: int, step: int) -> Int[Tensor, "count"]:
    """A permutation that every rank and every restart draws alike."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randperm(count, generator=generator)


@torch.no_grad()
def shuffled_apply(network: torch.nn.Module, images: Float[Tensor, "B 3 H W"], seed: int, step: int) -> Tensor:
    """network(images), each rank working on rows drawn from all ranks; the rows come back in place.

    https://arxiv.org/abs/1911.05722 section 3.3, shuffling BN.
    """
    order = permutation(len(images) * world_size(), seed, step).to(images.device)
    mine = order.chunk(world_size())[rank()]
    outputs = gather(network(gather(images)[mine]))
    return outputs[order.argsort().chunk(world_size())[rank()]]
