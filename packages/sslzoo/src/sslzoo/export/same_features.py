"""Whether two networks compute the same."""

import copy

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4


def same_features(first: nn.Module, second: nn.Module, size: int = 64) -> bool:
    """Whether both give the same features, to 1e-4 of the largest, for two random images.

    Args:
        first: images in, one vector each out.
        second: likewise.
        size: of the images in pixels.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = (features(network, images) for network in (first, second))
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * ours.abs().max())


@torch.no_grad()
def features(network: nn.Module, images: Tensor) -> Tensor:
    """Of a copy on the CPU in evaluation mode."""
    return copy.deepcopy(network).cpu().float().eval()(images)


def tensors_of(backbone: nn.Module) -> dict[str, Tensor]:
    """The state_dict on the CPU, by itself."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
