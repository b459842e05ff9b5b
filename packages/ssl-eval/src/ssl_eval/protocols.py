"""Evaluation protocols as configuration: kNN, linear evaluation, fine-tuning on few labels.

Learning rates are those of the protocol's own batch size, which counts the images of all processes; `scale_protocol`
scales them linearly to another batch size.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine period from 1 to 0.

    Attributes:
        per_step: whether to update every step (BYOL) or every epoch (MoCo v3, SimSiam, DINO, VICReg).
    """

    per_step: bool = False

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """Return the factor of the peak learning rate.

        Args:
            epoch: counted from 0.
            epochs: number of epochs of the training.
            share: fraction of this epoch that is finished, in [0, 1).
        """
        done = (epoch + (share if self.per_step else 0.0)) / epochs
        return 0.5 + 0.5 * math.cos(math.pi * done)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Piecewise constant with decay at milestones.

    Attributes:
        at: milestones as fractions of the training.
        by: factor at each milestone.
    """

    at: tuple[float, ...]
    by: float

    def factor(self, epoch: int, epochs: int, share: float) -> float:
        """Return the factor; see `Cosine.factor`."""
        return self.by ** sum(epoch >= round(place * epochs) for place in self.at)


Schedule = Cosine | MultiStep

BY_EPOCH = Cosine()
"""Schedule of most protocols."""


Trained = TypeVar("Trained", bound="LinearProtocol | FineTuneProtocol")


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Options of SGD.

    Attributes:
        momentum: momentum, without dampening.
        nesterov: whether to use Nesterov momentum.
        weight_decay: L2 weight decay on weights and biases.
        larc: whether each gradient is first multiplied by trust |w| / (|gradient| + decay |w| + epsilon), where neither
            norm is 0; weights and biases of each classifier for themselves (https://arxiv.org/abs/1708.03888).
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    larc: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassTokens:
    """Concatenated normalized class tokens of the last blocks and the mean of the last block's patch tokens.

    https://github.com/facebookresearch/dino, eval_linear.py at 7c446df; where it interleaves the class token with the
    mean, they are concatenated here, which is the same to a linear classifier.

    Attributes:
        blocks: number of last blocks.
        average: whether the mean of the patch tokens follows.
    """

    blocks: int
    average: bool = False


@dataclass(frozen=True, kw_only=True)
class TransformConfig:
    """Preprocessing: random resized crop and flip in training, center crop in the test.

    Attributes:
        size: height and width of the input, pixels.
        resize: short side before the center crop, pixels.
        crop_scale: smallest and largest fraction of the area of a random crop; its aspect ratio is 3/4 to 4/3.
        flip: probability of a horizontal flip in training.
        interpolation: interpolation of the test images.
    """

    size: int = 224
    resize: int = 256
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class KNNProtocol:
    """Weighted k nearest neighbors.

    Attributes:
        source: source of the numbers.
        k: numbers of neighbors; usually the first is reported.
        temperature: temperature of the votes.
        preparation: preprocessing of the images.
    """

    source: str
    k: tuple[int, ...]
    temperature: float
    preparation: TransformConfig = TransformConfig()


@dataclass(frozen=True, kw_only=True)
class LinearProtocol:
    """A linear classifier on a frozen backbone.

    Attributes:
        source: source of the numbers.
        epochs: number of epochs.
        batch_size: images per step, over all processes.
        learning_rate: initial learning rate.
        searched: learning rates that the source selects from on held-out training images; empty for a single one.
        schedule: schedule of the learning rate.
        momentum: momentum of SGD.
        nesterov: whether to use Nesterov momentum.
        weight_decay: L2 weight decay.
        larc: whether to adapt learning rates to the norms of each layer.
        class_tokens: class tokens of a vision transformer to use; None for the backbone's output.
        preparation: preprocessing of the images.
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
        """Options of SGD for the classifier."""
        return SGDConfig(momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay, larc=self.larc)


@dataclass(frozen=True, kw_only=True)
class FineTuneProtocol:
    """Backbone and classifier trained together on a fraction of the labels, with separate learning rates.

    Attributes:
        source: source of the numbers.
        percent: percentage of the labels.
        epochs: number of epochs.
        batch_size: images per step, over all processes.
        head_lr: initial learning rate of the classifier.
        backbone_lr: initial learning rate of the backbone.
        schedule: schedule of both learning rates.
        momentum: momentum of SGD.
        weight_decay: L2 weight decay.
        preparation: preprocessing of the images.
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
    """Return the protocol with another batch size, with linearly scaled learning rates, or number of epochs."""
    if (batch_size is not None and batch_size < 1) or (epochs is not None and epochs < 1):
        raise ValueError(f"expected batch_size and epochs of 1 or more, got {batch_size} and {epochs}")
    times = (batch_size or protocol.batch_size) / protocol.batch_size
    changes = {"batch_size": batch_size or protocol.batch_size, "epochs": epochs or protocol.epochs}
    if isinstance(protocol, FineTuneProtocol):
        rates = {"head_lr": protocol.head_lr * times, "backbone_lr": protocol.backbone_lr * times}
        return replace(protocol, **changes, **rates)
    searched = tuple(rate * times for rate in protocol.searched)
    return replace(protocol, **changes, learning_rate=protocol.learning_rate * times, searched=searched)
