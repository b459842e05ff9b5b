"""Classifiers from files: a network that is known here, with the linear layer that its file brings."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from genviews_core.backbones import describe
from sslzoo.official.opening import open_official
from sslzoo.official.read import read_checkpoint

HEADS = ("fc", "linear", "head", "classifier")
"""What torchvision, akamaster/pytorch_resnet_cifar10@d5489e8 and timm call the last layer."""


class Classifier(nn.Module):
    """A backbone and a linear layer.

    Attributes:
        backbone: images to features.
        head: features to logits, one a class.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B classes"]:
        """Logits of normalised images."""
        return self.head(self.backbone(images))


def open_classifier(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a file in torchvision's, timm's or the CIFAR ResNets' layout; nothing in it is executed.

    Args:
        path: a file of torch.save or a .safetensors.

    Returns:
        The network in evaluation mode, on the CPU, and what images it knows: `size` in pixels, `mean`, `std`.

    Raises:
        ValueError: no such file, an unknown network, or one without the linear layer of a classifier.
    """
    path = Path(path)
    backbone, about = open_official(path)
    content = read_checkpoint(path)
    for inside in (content, *(part for part in content.values() if isinstance(part, dict))):
        tensors = {str(name).removeprefix("module."): tensor for name, tensor in inside.items()}
        found = _head(tensors, backbone.num_features)  # pyright: ignore[reportArgumentType]
        if found is not None:
            images = about["recipe"]
            known = {"size": images["image_size"], "mean": tuple(images["mean"]), "std": tuple(images["std"])}
            return Classifier(backbone, found).eval(), known
    raise ValueError(
        f"expected a classifier in {path}, got a network without a linear layer called {', '.join(HEADS)} "
        f"({describe({'found': list(map(str, content))})}); give the file of a network that was trained with labels"
    )


def _head(tensors: dict[str, Any], width: int) -> nn.Linear | None:
    """The layer that takes the features, if there is one."""
    for name in HEADS:
        weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[1] == width:
            head = nn.Linear(width, len(weight), bias=bias is not None)
            head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
            return head
    return None
