"""Methods composed of lightly's modules as in its documentation: (first, second) -> loss.

Sizes are those of `step.OURS`; encoders have a `num_features` attribute.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from lightly.loss import (
    BarlowTwinsLoss,
    DINOLoss,
    NegativeCosineSimilarity,
    NTXentLoss,
    SwaVLoss,
    VICRegLoss,
)
from lightly.models.modules import (
    BarlowTwinsProjectionHead,
    BYOLPredictionHead,
    BYOLProjectionHead,
    DINOProjectionHead,
    MoCoProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn
from torch.nn import functional


class Pairs(nn.Module):
    """Encoder, head and a loss of two projections: SimCLR, VICReg, Barlow Twins."""

    def __init__(self, encoder: nn.Module, head: nn.Module, criterion: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head, self.criterion = encoder, head, criterion

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        return self.criterion(self.head(self.encoder(first)), self.head(self.encoder(second)))

    def after_step(self) -> None:
        """Nothing moves between steps."""


class SimSiam(nn.Module):
    """SimSiam."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        width = _width(encoder)
        self.projection = SimSiamProjectionHead(width, width, 2048)
        self.prediction = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetric loss of a batch of pairs."""
        z0, z1 = (self.projection(self.encoder(view)) for view in (first, second))
        p0, p1 = self.prediction(z0), self.prediction(z1)
        return 0.5 * (self.criterion(p0, z1.detach()) + self.criterion(p1, z0.detach()))

    def after_step(self) -> None:
        """Nothing moves between steps."""


class MomentumPair(nn.Module):
    """An encoder and a head with momentum copies."""

    def __init__(self, encoder: nn.Module, head: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head()
        self.key_encoder, self.key_head = copy.deepcopy(encoder), head()
        deactivate_requires_grad(self.key_encoder)
        deactivate_requires_grad(self.key_head)

    def keys(self, view: Tensor) -> Tensor:
        """Return the output of the momentum copies for a view."""
        with torch.no_grad():
            return self.key_head(self.key_encoder(view))

    def after_step(self) -> None:
        """Update the momentum copies."""
        update_momentum(self.encoder, self.key_encoder, m=0.99)
        update_momentum(self.head, self.key_head, m=0.99)


class MoCoV2(MomentumPair):
    """MoCo v2."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder, lambda: MoCoProjectionHead(_width(encoder), _width(encoder), 128))
        self.criterion = NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs: queries of the first view, keys of the second."""
        return self.criterion(self.head(self.encoder(first)), self.keys(second))


class BYOL(MomentumPair):
    """BYOL."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder, lambda: BYOLProjectionHead(_width(encoder), 4096, 256))
        self.prediction = BYOLPredictionHead(256, 4096, 256)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The symmetric loss of a batch of pairs."""
        p0, p1 = (self.prediction(self.head(self.encoder(view))) for view in (first, second))
        return 0.5 * (self.criterion(p0, self.keys(second)) + self.criterion(p1, self.keys(first)))


class SwAV(nn.Module):
    """SwAV of two views."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = SwaVProjectionHead(_width(encoder), 2048, 128)
        self.prototypes = SwaVPrototypes(128, 512)
        self.criterion = SwaVLoss()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        points = (functional.normalize(self.projection(self.encoder(view)), dim=1) for view in (first, second))
        return self.criterion([self.prototypes(each) for each in points], [])

    def after_step(self) -> None:
        """Normalize the prototypes."""
        self.prototypes.normalize()


class DINO(MomentumPair):
    """DINO of two global views."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder, lambda: DINOProjectionHead(_width(encoder), 2048, 256, 4096))
        self.criterion = DINOLoss(output_dim=4096)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        views = (first, second)
        return self.criterion(
            [self.keys(view) for view in views], [self.head(self.encoder(view)) for view in views], epoch=1
        )


def _width(encoder: nn.Module) -> int:
    return encoder.num_features  # pyright: ignore[reportReturnType]


def _simclr(encoder: nn.Module) -> nn.Module:
    return Pairs(encoder, SimCLRProjectionHead(_width(encoder), _width(encoder), 128), NTXentLoss(temperature=0.5))


def _vicreg(encoder: nn.Module) -> nn.Module:
    return Pairs(encoder, VICRegProjectionHead(_width(encoder), 2048, 2048, num_layers=3), VICRegLoss())


def _barlow_twins(encoder: nn.Module) -> nn.Module:
    return Pairs(encoder, BarlowTwinsProjectionHead(_width(encoder), 2048, 2048), BarlowTwinsLoss())


BASELINES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "SimCLR": _simclr,
    "MoCo v2": MoCoV2,
    "SimSiam": SimSiam,
    "BYOL": BYOL,
    "SwAV": SwAV,
    "VICReg": _vicreg,
    "Barlow Twins": _barlow_twins,
    "DINO": DINO,
}
"""lightly has no MoCo v3."""
