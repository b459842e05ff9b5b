"""What the training and the test ask of a network, whichever library it is of.

Shapes: k objects found, h x w pixels.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_eval.coco.examples import Example


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector sees in one image.

    Attributes:
        boxes: left, top, right, bottom, in the pixels of the file.
        scores: from 0 to 1.
        labels: classes, counted from 0.
        masks: of the file's size.
    """

    boxes: Float[Tensor, "k 4"]
    scores: Float[Tensor, " k"]
    labels: Int[Tensor, " k"]
    masks: Bool[Tensor, "k h w"]


@runtime_checkable
class Detector(Protocol):
    """A Mask R-CNN.

    Attributes:
        network: all that is trained.
    """

    network: nn.Module

    @staticmethod
    def to_input(example: Example) -> Any:
        """What it takes of an image; called where the image is read."""
        ...

    def losses(self, inputs: list[Any]) -> dict[str, Tensor]:
        """In training mode: what is summed up and descended."""
        ...

    def detect(self, inputs: list[Any]) -> list[Found]:
        """In evaluation mode."""
        ...
