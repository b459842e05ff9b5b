"""A discriminator of image patches (PatchGAN).

Shapes: B images of a batch, H, W their sides in pixels, h, w the number of patches down and across.
"""

from jaxtyping import Float
from torch import Tensor, nn

NORM_GROUPS = 8
SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """One figure for each patch of an image: high where it looks real (https://arxiv.org/abs/1611.07004).

    Kernels, strides, widths and initial weights are those of LDM's discriminator; group normalisation stands in for
    batch normalisation, so that an image's figures do not depend on its batch or on the number of processes.

    Args:
        channels: of the first layer; they double up to eightfold.
        layers: strided ones; a patch is 2^layers pixels from the next.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            convolution = nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=False)
            stages += [convolution, nn.GroupNorm(NORM_GROUPS, widths[level]), nn.LeakyReLU(SLOPE)]
        self.stages = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 h w"]:
        """The patches' figures."""
        return self.stages(pixels)
