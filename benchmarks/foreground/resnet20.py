"""The ResNet-20 of CIFAR-10 (https://arxiv.org/abs/1512.03385, 4.2), as akamaster/pytorch_resnet_cifar10 has it.

Shapes: B images, H x W pixels.
"""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from pairquality.recipe import fill, read_tensors

CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What that training normalised with."""


class ResNet20(nn.Module):
    """Images to the last map, 64 channels at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64 H/4 W/4"]:
        """The map before pooling."""
        return self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(images))))))


class Block(nn.Module):
    """Two convolutions; where the width doubles, the shortcut takes every other pixel and pads the channels."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.stride, self.padding = (1, 0) if wide_in == wide_out else (2, (wide_out - wide_in) // 2)
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wide_out), nn.BatchNorm2d(wide_out)

    def forward(self, maps: Tensor) -> Tensor:
        """Residual sum."""
        shortcut = pad(maps[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(maps))))) + shortcut)


def load_resnet20(path: str) -> nn.Module:
    """From a .th file of that repository.

    Raises:
        ValueError: the file is missing, broken or of another network.
    """
    tensors = read_tensors(Path(path))
    network = ResNet20()
    fill(network, {name: tensor for name, tensor in tensors.items() if not name.startswith("linear.")}, path)
    return network.eval()
