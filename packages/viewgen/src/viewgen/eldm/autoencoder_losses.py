"""The losses of the autoencoder: reconstruction, KL divergence, and a patch discriminator.

Shapes: B images of a batch, K their channels, H, W their sides in pixels, C, h, w the channels and sides of the
latents (or patches).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from genviews_core.distributed import all_reduce_sum, default_group, world_size

PYRAMID_LEVELS = 4
MAX_WEIGHT = 1e4


def pyramid_error(difference: Float[Tensor, "B C H W"], levels: int = PYRAMID_LEVELS) -> Float[Tensor, ""]:
    """Return the sum of the mean absolute differences of all levels of a Laplacian pyramid.

    ``L_j = d_j - up(down(d_j))``, ``d_(j+1) = down(d_j)``, and the coarsest ``d`` itself (Lap1 of
    https://arxiv.org/abs/1707.05776, section 2.2; its weights 4^j of sums are equal weights of means). Linear, so the
    difference of two images stands for both. Here down is the mean of 2 x 2 and up is bilinear.

    Args:
        difference: reconstruction minus image.
        levels: maximum number of levels; no level is coarser than one pixel.
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
    """Return the KL divergence of a diagonal normal distribution from the standard one, summed over an image's latents.

    ``(m^2 + s^2 - 1 - log s^2) / 2`` (https://arxiv.org/abs/1312.6114, appendix B), the mean over the batch.
    """
    terms = mean.square() + log_variance.exp() - 1 - log_variance
    return terms.sum(dim=(1, 2, 3)).mean() / 2


def hinge_loss(real: Float[Tensor, "B 1 h w"], fake: Float[Tensor, "B 1 h w"]) -> Float[Tensor, ""]:
    """Return the discriminator's loss ``(max(0, 1 - real) + max(0, 1 + fake)) / 2`` (https://arxiv.org/abs/1705.02894)."""
    return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2


def adaptive_weight(
    error: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Return the weight that gives both losses gradients of equal norm at the last layer.

    ``|grad error| / (|grad adversarial| + 1e-4)``, at most ``MAX_WEIGHT`` (https://arxiv.org/abs/2012.09841,
    equation 7; delta and bound as in the official code), with gradients averaged over all processes.
    """
    norms, group = [], default_group()
    for loss in (error, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        norms.append((all_reduce_sum(gradient, group) / world_size(group)).norm())
    return (norms[0] / (norms[1] + 1e-4)).clamp_max(MAX_WEIGHT).detach()


NORM_GROUPS = 8
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """A score for each patch of an image, high where it looks real (PatchGAN, https://arxiv.org/abs/1611.07004).

    Kernels, strides, widths and initial weights are those of LDM's discriminator; group normalization stands in for
    batch normalization, so that an image's scores do not depend on its batch or on the number of processes.

    Args:
        channels: channels of the first layer; they double per layer, up to eightfold.
        layers: number of strided layers; neighboring patches are 2^layers pixels apart.
        image_channels: K.
    """

    def __init__(self, channels: int = 64, layers: int = 3, image_channels: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(image_channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            convolution = nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=False)
            stages += [convolution, nn.GroupNorm(NORM_GROUPS, widths[level]), nn.LeakyReLU(SLOPE)]
        self.stages = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)

    def forward(self, pixels: Float[Tensor, "B K H W"]) -> Float[Tensor, "B 1 h w"]:
        """Return the scores of the patches."""
        return self.stages(pixels)
