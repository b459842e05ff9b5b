"""Shuffling a batch over ranks and splits, so that their batch norms cannot tell which key belongs to which query.

Shapes: W ranks, B samples per rank, H x W pixels.
"""

import hashlib

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sslzoo.gather import gather, rank, world_size


def permutation(count: int, seed: int, step: int) -> Int[Tensor, "count"]:
    """A permutation that every rank and every restart draws alike."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.randperm(count, generator=generator)


@torch.no_grad()
def shuffled_apply(network: torch.nn.Module, images: Float[Tensor, "B 3 H W"], order: Int[Tensor, "WB"]) -> Tensor:
    """network(images), each rank working on rows drawn from all ranks; the rows come back in place.

    https://arxiv.org/abs/1911.05722 section 3.3, shuffling BN.

    Args:
        network: what is applied.
        images: this rank's.
        order: a permutation of the rows of all ranks, the same on every rank.
    """
    mine = order.chunk(world_size())[rank()]
    return back_in_place(network(gather(images)[mine]), order)


@torch.no_grad()
def back_in_place(rows: Shaped[Tensor, "B *rest"], order: Int[Tensor, "WB"]) -> Shaped[Tensor, "B *rest"]:
    """This rank's own rows, of what every rank has made of the rows that `order` dealt to it."""
    return gather(rows)[order.argsort().chunk(world_size())[rank()]]
