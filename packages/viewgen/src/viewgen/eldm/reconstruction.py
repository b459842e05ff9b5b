"""What an autoencoder is trained to: images like the originals, latents like a normal distribution, honest patches.

Shapes: B images of a batch, H, W their sides in pixels, C, h, w the channels and sides of the latents.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, relu

PYRAMID_LEVELS = 4
LARGEST_WEIGHT = 1e4


def pyramid_error(difference: Float[Tensor, "B C H W"], levels: int = PYRAMID_LEVELS) -> Float[Tensor, ""]:
    """The sum over a Laplacian pyramid's levels of the mean absolute difference.

    ``L_j = d_j - up(down(d_j))``, ``d_(j+1) = down(d_j)``, and the coarsest ``d`` itself (Lap1 of
    https://arxiv.org/abs/1707.05776, section 2.2; its weights 4^j of sums are equal weights of means). Linear, so the
    difference of two images stands for both. Here down is the mean of 2 x 2 and up is bilinear.

    Args:
        difference: of reconstruction and image.
        levels: at most so many; no level is coarser than one pixel.
    """
    total = difference.new_zeros(())
    for _ in range(levels):
        if min(difference.shape[-2:]) < 2:
            break
        coarse = avg_pool2d(difference, 2)
        finer = interpolate(coarse, difference.shape[-2:], mode="bilinear", align_corners=False)
        total, difference = total + (difference - finer).abs().mean(), coarse
    return total + difference.abs().mean()


def normal_divergence(mean: Float[Tensor, "B C h w"], log_variance: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """KL divergence of a diagonal normal distribution from the standard one, summed over an image's latents.

    ``(m^2 + s^2 - 1 - log s^2) / 2`` (https://arxiv.org/abs/1312.6114, appendix B), the mean over the batch.
    """
    terms = mean.square() + log_variance.exp() - 1 - log_variance
    return terms.sum(dim=(1, 2, 3)).mean() / 2


def hinge_loss(real: Float[Tensor, "B 1 h w"], fake: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """The discriminator's: ``(max(0, 1 - real) + max(0, 1 + fake)) / 2`` (https://arxiv.org/abs/1705.02894)."""
    return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2


def adaptive_weight(
    error: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """The weight that makes the adversarial term's gradient at the last layer as long as the error's.

    ``|grad error| / (|grad adversarial| + 1e-4)``, at most ``LARGEST_WEIGHT`` (https://arxiv.org/abs/2012.09841,
    equation 7; its delta and bound as in the official code), of the gradients of all processes together.
    """
    lengths = []
    for loss in (error, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        if dist.is_initialized():
            dist.all_reduce(gradient)
            gradient = gradient / dist.get_world_size()
        lengths.append(gradient.norm())
    return (lengths[0] / (lengths[1] + 1e-4)).clamp_max(LARGEST_WEIGHT).detach()
