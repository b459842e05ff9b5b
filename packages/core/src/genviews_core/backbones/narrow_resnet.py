"""A small residual network for small images on a CPU.

Shapes: B samples, H x W pixels, D = 8 x width features.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class NarrowResNet(nn.Module):
    """ResNet with one basic block per stage and configurable width; modules are named as in torchvision's ResNet.

    Args:
        width: channels of the first stage; the others have 2, 4 and 8 times as many (64 in torchvision).
        cifar_stem: a 3x3 convolution and no pooling instead of a 7x7 convolution with stride 2 and max pooling.
        stem_stride: stride of the 3x3 convolution; 2 is three times faster at 32 px but keeps less detail.
    """

    def __init__(self, *, width: int = 32, cifar_stem: bool = False, stem_stride: int = 1):
        super().__init__()
        if cifar_stem:
            self.conv1 = nn.Conv2d(3, width, 3, stem_stride, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = 8 * width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Return globally average-pooled features."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return torch.flatten(self.avgpool(maps), 1)


def _stage(wide_in: int, wide_out: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(nn.Conv2d(wide_in, wide_out, 1, stride, bias=False), nn.BatchNorm2d(wide_out))
    return nn.Sequential(BasicBlock(wide_in, wide_out, stride, shortcut))
