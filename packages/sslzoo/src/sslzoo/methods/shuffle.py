"""Shuffling BN: shuffle a batch over ranks and splits, so that batch norm statistics do not link keys to queries.

Shapes: W ranks, B samples per rank, H x W pixels.
"""

import hashlib

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sslzoo.gather import gather, rank, world_size


def permutation(count: int, seed: int, step: int) -> Int[Tensor, "count"]:
    """Return a random permutation that depends only on the arguments, the same on every rank and after a resume."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randperm(count, generator=generator)


@torch.no_grad()
def shuffled_apply(network: torch.nn.Module, images: Float[Tensor, "B 3 H W"], order: Int[Tensor, "WB"]) -> Tensor:
    """Return network(images), computed on rows shuffled over all ranks and restored to their order.

    https://arxiv.org/abs/1911.05722 section 3.3, shuffling BN.

    Args:
        network: the network to apply.
        images: images of this rank.
        order: a permutation of the rows of all ranks, the same on every rank.
    """
    mine = order.chunk(world_size())[rank()]
    return unshuffle(network(gather(images)[mine]), order)


@torch.no_grad()
def unshuffle(rows: Shaped[Tensor, "B *rest"], order: Int[Tensor, "WB"]) -> Shaped[Tensor, "B *rest"]:
    """Gather the outputs of all ranks for rows shuffled by `order`, and return those of this rank's own rows."""
    return gather(rows)[order.argsort().chunk(world_size())[rank()]]
