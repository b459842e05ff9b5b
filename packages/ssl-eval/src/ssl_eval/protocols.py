"""Evaluation protocols as configuration: kNN, linear evaluation, fine-tuning on few labels.

Learning rates are those of the protocol's own batch size, which counts the images of all processes; `scale_protocol`
scales them linearly to another batch size.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 to 0.

    Attributes:
        per_step: whether it moves at every step (BYOL), or at every epoch (MoCo v3, SimSiam, DINO, VICReg).
    """

    per_step: bool = False

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """What the peak rate is multiplied by.

        Args:
            epoch: counted from 0.
            epochs: of the whole training.
            share: of this epoch that is done, in [0, 1).
        """
        done = (epoch + (share if self.per_step else 0.0)) / epochs
        return 0.5 + 0.5 * math.cos(math.pi * done)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Constant but for some epochs.

    Attributes:
        at: where it falls, as shares of the training, so that a shorter training falls there too.
        by: what it is multiplied by at each.
    """

    at: tuple[float, ...]
    by: float

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """As `Cosine.factor`."""
        return self.by ** sum(epoch >= round(place * epochs) for place in self.at)


Schedule = Cosine | MultiStep

BY_EPOCH = Cosine()
"""What most protocols use."""


Trained = TypeVar("Trained", bound="LinearProtocol | FineTuneProtocol")


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """How gradients move weights.

    Attributes:
        momentum: of SGD, without dampening.
        nesterov: whether it is Nesterov's.
        weight_decay: L2 on weights and biases.
        larc: whether each gradient is first multiplied by trust |w| / (|gradient| + decay |w| + epsilon), where neither
            norm is 0; weights and biases of each classifier for themselves (https://arxiv.org/abs/1708.03888).
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    larc: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassTokens:
    """The normalized class tokens of the last blocks, side by side, and the mean of the last block's patch tokens.

    https://github.com/facebookresearch/dino, eval_linear.py at 7c446df; where it interleaves the class token with the
    mean, they stand one after the other here, which is the same to a linear classifier.

    Attributes:
        blocks: how many.
        average: whether the mean of the patch tokens follows.
    """

    blocks: int
    average: bool = False


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
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
    preparation: TransformConfig = TransformConfig()


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
    preparation: TransformConfig = TransformConfig()

    @property
    def descent(self) -> SGDConfig:
        """How gradients move the classifier."""
        return SGDConfig(momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay, larc=self.larc)


@dataclass(frozen=True, kw_only=True)
class FineTuneProtocol:
    """Backbone and classifier trained together on a part of the labels, at rates of their own.

    Attributes:
        source: where the numbers come from.
        percent: of the labels.
        epochs: of training.
        batch_size: images a step, over all processes.
        head_lr: learning rate of the classifier at the start.
        backbone_lr: learning rate of the backbone at the start.
        schedule: of both.
        momentum: of SGD.
        weight_decay: L2.
        preparation: of the images.
    """

    source: str
    percent: int
    epochs: int
    batch_size: int
    head_lr: float
    backbone_lr: float
    schedule: Schedule = BY_EPOCH
    momentum: float = 0.9
    weight_decay: float = 0.0
    preparation: TransformConfig = TransformConfig()


Protocol = KNNProtocol | LinearProtocol | FineTuneProtocol


def scale_protocol(protocol: Trained, *, batch_size: int | None = None, epochs: int | None = None) -> Trained:
    """The protocol at another batch size, its learning rates scaled linearly, or over another number of epochs."""
    if (batch_size is not None and batch_size < 1) or (epochs is not None and epochs < 1):
        raise ValueError(f"batch_size = {batch_size}, epochs = {epochs}: both must be at least 1")
    times = (batch_size or protocol.batch_size) / protocol.batch_size
    changes = {"batch_size": batch_size or protocol.batch_size, "epochs": epochs or protocol.epochs}
    if isinstance(protocol, FineTuneProtocol):
        rates = {"head_lr": protocol.head_lr * times, "backbone_lr": protocol.backbone_lr * times}
        return replace(protocol, **changes, **rates)
    searched = tuple(rate * times for rate in protocol.searched)
    return replace(protocol, **changes, learning_rate=protocol.learning_rate * times, searched=searched)
