"""Gen-DINO: DINO that also learns from interpolated views, https://arxiv.org/abs/2412.01672.

Shapes: B samples, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sslzoo import losses
from sslzoo.methods.dino import DINO
from sslzoo.methods.method import Weights, resolve_weights


@dataclass(frozen=True, kw_only=True)
class Interpolated:
    """Interpolated views, their second sources and weights.

    Attributes:
        view: augmented view of the interpolated image.
        partner: augmented view of the second source; the first source is the sample's own image.
        alpha: weight of the first source, in [0, 1].
        exists: False for samples without an interpolated image; their other entries are ignored.
    """

    view: Float[Tensor, "B C H W"]
    partner: Float[Tensor, "B C H W"]
    alpha: Float[Tensor, "B"]
    exists: Bool[Tensor, "B"]


class GenDINO(DINO):
    """DINO plus `disentanglement_weight` times the disentanglement loss.

    The generative view is one of `views[:2]`. Gen-SIS does not publish the weight; 1 is our choice, not measured.

    Args:
        backbone: network with `.num_features`.
        disentanglement_weight: weight of the additional term.
        options: options of DINO.
    """

    def __init__(self, backbone: nn.Module, *, disentanglement_weight: float = 1.0, **options):
        super().__init__(backbone, **options)
        self.disentanglement_weight = disentanglement_weight

    def forward(
        self,
        views: Sequence[Float[Tensor, "B C _ _"]],
        weights: Weights = None,
        interpolated: Interpolated | None = None,
    ) -> dict[str, Tensor]:
        """Return the output of DINO; with interpolated views, the loss includes the term `disentanglement`."""
        teacher = self._teacher_logits(views)
        weights = resolve_weights(weights)
        output = self._distill(views, teacher, weights)
        if interpolated is None:
            return output
        term = self._disentangle(interpolated, teacher[0], weights)
        return {**output, "loss": output["loss"] + self.disentanglement_weight * term, "disentanglement": term.detach()}

    def _disentangle(self, interpolated: Interpolated, teacher_first: Tensor, weights: Tensor | None) -> Tensor:
        with torch.no_grad():
            teacher_second = self.teacher(interpolated.partner)
        exists = interpolated.exists.to(interpolated.alpha.dtype)
        return losses.disentanglement(
            self.student(interpolated.view),
            teacher_first,
            teacher_second,
            interpolated.alpha,
            center=self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            weights=exists if weights is None else weights * exists,
        )
