"""What a protocol is: kNN, a linear classifier, fine-tuning on few labels.

Learning rates are those of the protocol's own batch size, which counts the images of all processes; `adapted` scales
them linearly with another.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ssl_eval.schedule import BY_EPOCH, Schedule
from ssl_eval.softmax_regression import Descent
from ssl_eval.token_features import ClassTokens

Trained = TypeVar("Trained", bound="LinearProtocol | FineTuneProtocol")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How an image becomes an input: in training a random resized crop and a flip, in a test the centre.

    Attributes:
        size: side of the input, pixels.
        resize: short side before the centre is cut, pixels.
        crop_scale: share of the area of a random crop, smallest and largest; aspect ratio from 3/4 to 4/3.
        flip: chance of a horizontal flip in training.
        interpolation: of the test images.
    """

    size: int = 224
    resize: int = 256
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class KNNProtocol:
    """Weighted k nearest neighbours.

    Attributes:
        source: where the numbers come from.
        k: how many neighbours vote; the first is the one usually told.
        temperature: of the votes.
        preparation: of the images.
    """

    source: str
    k: tuple[int, ...]
    temperature: float
    preparation: Preparation = Preparation()


@dataclass(frozen=True, kw_only=True)
class LinearProtocol:
    """A linear classifier on a frozen backbone.

    Attributes:
        source: where the numbers come from.
        epochs: of training.
        batch_size: images a step, over all processes.
        learning_rate: at the start.
        searched: rates that the source chooses among on held-out training images; empty where it names one.
        schedule: of the rate.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: L2.
        larc: whether rates adapt to each layer's norms.
        class_tokens: of which blocks of a vision transformer; the backbone's own output where None.
        preparation: of the images.
    """

    source: str
    epochs: int
    batch_size: int
    learning_rate: float
    searched: tuple[float, ...] = ()
    schedule: Schedule = BY_EPOCH
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    larc: bool = False
    class_tokens: ClassTokens | None = None
    preparation: Preparation = Preparation()

    @property
    def descent(self) -> Descent:
        """How gradients move the classifier."""
        return Descent(momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay, larc=self.larc)


@dataclass(frozen=True, kw_only=True)
class FineTuneProtocol:
    """Backbone and classifier trained together on a part of the labels, at rates of their own.

    Attributes:
        source: where the numbers come from.
        percent: of the labels.
        epochs: of training.
        batch_size: images a step, over all processes.
        head_rate: learning rate of the classifier at the start.
        backbone_rate: learning rate of the backbone at the start.
        schedule: of both.
        momentum: of SGD.
        weight_decay: L2.
        preparation: of the images.
    """

    source: str
    percent: int
    epochs: int
    batch_size: int
    head_rate: float
    backbone_rate: float
    schedule: Schedule = BY_EPOCH
    momentum: float = 0.9
    weight_decay: float = 0.0
    preparation: Preparation = Preparation()


Protocol = KNNProtocol | LinearProtocol | FineTuneProtocol


def adapted(protocol: Trained, *, batch_size: int | None = None, epochs: int | None = None) -> Trained:
    """The protocol at another batch size, its learning rates scaled linearly, or over another number of epochs."""
    if (batch_size is not None and batch_size < 1) or (epochs is not None and epochs < 1):
        raise ValueError(f"batch_size = {batch_size}, epochs = {epochs}: both must be at least 1")
    times = (batch_size or protocol.batch_size) / protocol.batch_size
    changes = {"batch_size": batch_size or protocol.batch_size, "epochs": epochs or protocol.epochs}
    if isinstance(protocol, FineTuneProtocol):
        rates = {"head_rate": protocol.head_rate * times, "backbone_rate": protocol.backbone_rate * times}
        return replace(protocol, **changes, **rates)
    searched = tuple(rate * times for rate in protocol.searched)
    return replace(protocol, **changes, learning_rate=protocol.learning_rate * times, searched=searched)
