"""ResNets with all channel counts multiplied, as the wide networks of SimCLR, SwAV, VICReg and BYOL.

Shapes: B samples, H x W pixels, D = 2048 x widen features.
"""

import torch
from jaxtyping import Float
from timm.layers import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
"""Bottlenecks per stage: facebookresearch/vicreg@4e12602 resnet.py, Separius/SimCLRv2-Pytorch@f4c2f41 resnet.py."""


class WidenedResNet(nn.Module):
    """Bottleneck ResNet, `widen` times as wide in every layer; modules are named as in torchvision's ResNet.

    torchvision's `wide_resnet50_2` is a different network: it widens only the inside of its bottlenecks.

    Args:
        depth: 50, 101, 152 or 200.
        widen: multiplier of all channel counts.
        same_padding: pad strided layers as TensorFlow and Haiku do, one pixel less at the left and the top.

    Raises:
        ValueError: the depth is not one of these.
    """

    def __init__(self, *, depth: int = 50, widen: int = 1, same_padding: bool = False):
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"A widened ResNet has one of the depths {', '.join(map(str, BLOCKS))}, not {depth}.")
        width = 64 * widen
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = _stage(width, width, first, stride=1)
        self.layer2 = _stage(4 * width, 2 * width, second, stride=2)
        self.layer3 = _stage(8 * width, 4 * width, third, stride=2)
        self.layer4 = _stage(16 * width, 8 * width, fourth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = 32 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if same_padding:
            _pad_as_tensorflow(self)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return globally average-pooled features."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return torch.flatten(self.avgpool(maps), 1)


def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    wide = planes * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
    first = Bottleneck(channels, planes, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(wide, planes) for _ in range(blocks - 1)))


def _pad_as_tensorflow(network: WidenedResNet) -> None:
    network.maxpool = MaxPool2dSame(3, 2)
    for module in network.modules():
        for name, layer in module.named_children():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) and layer.kernel_size != (1, 1):
                same = Conv2dSame(layer.in_channels, layer.out_channels, layer.kernel_size, 2, bias=False)  # pyright: ignore
                same.weight = layer.weight
                setattr(module, name, same)
