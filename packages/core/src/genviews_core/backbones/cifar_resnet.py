"""The residual networks of CIFAR-10, https://arxiv.org/abs/1512.03385 section 4.2.

Shapes: B images, H x W pixels.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels; names as in akamaster/pytorch_resnet_cifar10@d5489e8 resnet.py.

    Args:
        blocks: number of residual blocks in each stage.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for stage in (1, 2, 3):
            first = Block(widths[stage - 1], widths[stage])
            rest = (Block(widths[stage], widths[stage]) for _ in range(blocks - 1))
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.num_features = 64
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def maps(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64 H/4 W/4"]:
        """Return the last feature map, before pooling."""
        features = relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(features)))  # pyright: ignore[reportCallIssue]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64"]:
        """Return globally average-pooled features."""
        return self.maps(images).mean((2, 3))


class Block(nn.Module):
    """Basic block; where the width doubles, the shortcut takes every other pixel and zero-pads the channels."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.stride, self.padding = (1, 0) if wide_in == wide_out else (2, (wide_out - wide_in) // 2)
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wide_out), nn.BatchNorm2d(wide_out)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the activated residual sum."""
        shortcut = pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(maps))))) + shortcut)
