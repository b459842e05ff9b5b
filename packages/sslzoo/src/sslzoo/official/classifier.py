"""Load classifiers: a known backbone with the linear layer from its checkpoint."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from genviews_core.backbones import describe
from sslzoo.official.opening import open_official
from sslzoo.official.read import read_checkpoint

HEADS = ("fc", "linear", "head", "classifier")
"""Names of the last layer in torchvision, akamaster/pytorch_resnet_cifar10@d5489e8 and timm."""


class Classifier(nn.Module):
    """A backbone and a linear layer.

    Attributes:
        backbone: maps images to features.
        head: maps features to class logits.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B classes"]:
        """Return the logits of normalized images."""
        return self.head(self.backbone(images))


def open_classifier(path: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """Load a classifier in the layout of torchvision, timm or the CIFAR ResNets; no code in the file is executed.

    Args:
        path: a file written by torch.save, or a .safetensors file.

    Returns:
        The network in evaluation mode on the CPU, and its preprocessing: `size` in pixels, `mean`, `std`.

    Raises:
        ValueError: the file does not exist, its network is unknown, or it has no linear classification layer.
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
    """Return the linear layer that matches the feature width, or None."""
    for name in HEADS:
        weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        if isinstance(weight, Tensor) and weight.ndim == 2 and weight.shape[1] == width:
            head = nn.Linear(width, len(weight), bias=bias is not None)
            head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
            return head
    return None
