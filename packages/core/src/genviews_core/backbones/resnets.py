"""Residual networks that torchvision lacks; modules have the names of torchvision's ResNet.

Shapes: B images of C channels, H x W pixels, D features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu
from torchvision.models.resnet import BasicBlock, Bottleneck

from genviews_core.backbones.names import WIDE_CHANNEL_BLOCKS


class CifarResNet(nn.Module):
    """The ResNet for CIFAR-10, https://arxiv.org/abs/1512.03385 section 4.2.

    Three stages of 16, 32 and 64 channels; names as in akamaster/pytorch_resnet_cifar10@d5489e8 resnet.py.

    Args:
        blocks: number of residual blocks in each stage.
        in_chans: C.
    """

    def __init__(self, blocks: int, in_chans: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for stage in (1, 2, 3):
            first = CifarBlock(widths[stage - 1], widths[stage])
            rest = (CifarBlock(widths[stage], widths[stage]) for _ in range(blocks - 1))
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.num_features = 64
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def maps(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 64 H/4 W/4"]:
        """Return the last feature map, before pooling."""
        features = relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(features)))  # pyright: ignore[reportCallIssue]

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 64"]:
        """Return globally average-pooled features."""
        return self.maps(images).mean((2, 3))


class CifarBlock(nn.Module):
    """Basic block; where the width doubles, the shortcut takes every other pixel and zero-pads the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stride, self.padding = (1, 0) if in_channels == out_channels else (2, (out_channels - in_channels) // 2)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out_channels), nn.BatchNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the activated residual sum."""
        shortcut = pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(maps))))) + shortcut)


class SmallResNet(nn.Module):
    """ResNet with one basic block per stage and configurable width; modules are named as in torchvision's ResNet.

    Args:
        width: channels of the first stage; the others have 2, 4 and 8 times as many (64 in torchvision).
        cifar_stem: a 3x3 convolution and no pooling instead of a 7x7 convolution with stride 2 and max pooling.
        stem_stride: stride of the 3x3 convolution; 2 is three times faster at 32 px but keeps less detail.
        in_chans: C.
    """

    def __init__(self, *, width: int = 32, cifar_stem: bool = False, stem_stride: int = 1, in_chans: int = 3):
        super().__init__()
        if cifar_stem:
            self.conv1 = nn.Conv2d(in_chans, width, 3, stem_stride, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_chans, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
        self.layer1 = _basic_stage(width, width, stride=1)
        self.layer2 = _basic_stage(width, 2 * width, stride=2)
        self.layer3 = _basic_stage(2 * width, 4 * width, stride=2)
        self.layer4 = _basic_stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = 8 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return globally average-pooled features."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return torch.flatten(self.avgpool(maps), 1)


def _basic_stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride, shortcut))


class WideChannelResNet(nn.Module):
    """Bottleneck ResNet, `widen` times as wide in every layer; modules are named as in torchvision's ResNet.

    torchvision's `wide_resnet50_2` is a different network: it widens only the inside of its bottlenecks.

    Args:
        depth: 50, 101, 152 or 200.
        widen: multiplier of all channel counts.
        same_padding: pad strided layers as TensorFlow and Haiku do, one pixel less at the left and the top.
        in_chans: C.

    Raises:
        ValueError: the depth is not one of these.
    """

    def __init__(self, *, depth: int = 50, widen: int = 1, same_padding: bool = False, in_chans: int = 3):
        super().__init__()
        if depth not in WIDE_CHANNEL_BLOCKS:
            raise ValueError(f"expected a depth of {', '.join(map(str, WIDE_CHANNEL_BLOCKS))}, got {depth}")
        width = 64 * widen
        self.conv1 = nn.Conv2d(in_chans, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        first, second, third, fourth = WIDE_CHANNEL_BLOCKS[depth]
        self.layer1 = _bottleneck_stage(width, width, first, stride=1)
        self.layer2 = _bottleneck_stage(4 * width, 2 * width, second, stride=2)
        self.layer3 = _bottleneck_stage(8 * width, 4 * width, third, stride=2)
        self.layer4 = _bottleneck_stage(16 * width, 8 * width, fourth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = 32 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if same_padding:
            _pad_as_tensorflow(self)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return globally average-pooled features."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return torch.flatten(self.avgpool(maps), 1)


def _bottleneck_stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    out_channels = planes * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
    first = Bottleneck(channels, planes, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(out_channels, planes) for _ in range(blocks - 1)))


def _pad_as_tensorflow(network: WideChannelResNet) -> None:
    from timm.layers import Conv2dSame
    from timm.layers.pool2d_same import MaxPool2dSame

    network.maxpool = MaxPool2dSame(3, 2)
    for module in network.modules():
        for name, layer in module.named_children():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) and layer.kernel_size != (1, 1):
                same = Conv2dSame(layer.in_channels, layer.out_channels, layer.kernel_size, 2, bias=False)  # pyright: ignore
                same.weight = layer.weight
                setattr(module, name, same)
