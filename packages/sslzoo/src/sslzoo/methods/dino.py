"""DINO: https://arxiv.org/abs/2104.14294.

Shapes: V views, T = 2 global views, B samples, K prototypes, H x W pixels.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslzoo import losses
from sslzoo.gather import mean_over_ranks
from sslzoo.heads import DINOHead, Encoder
from sslzoo.losses.dino import assignment
from sslzoo.losses.reduction import precise
from sslzoo.methods.method import Method, Weights, resolved
from sslzoo.momentum import follow, momentum_copy
from sslzoo.schedules import cosine, linear_then_constant


class DINO(Method):
    """views[:2] are global and seen by the teacher; the student sees all, the local ones at any size.

    Defaults: facebookresearch/dino@7c446df main_dino.py (get_args_parser, DINOLoss). What is there counted in epochs
    is here a share of the training. The last layer is frozen by sslzoo.build_optimizer, which drops its gradient.

    Args:
        backbone: with `.num_features`.
        out_dim: K.
        hidden_dim: width of the head's hidden layers.
        bottleneck_dim: width before the prototypes.
        head_layers: linear layers before the prototypes.
        head_batch_norm: batch norm in the head.
        norm_last_layer: keep the prototypes at norm 1; steadier, officially off for ViT-S.
        student_temperature: T_s.
        teacher_temperature: T_t after its warm-up.
        teacher_temperature_start: T_t at the start.
        teacher_warmup_share: share of the training over which T_t rises.
        momentum: of the teacher at the start; rises to 1 along a cosine.
        center_momentum: of the center.
        frozen_share: share of the training for which the last layer stays as it is (one epoch of 100).
    """

    center: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        head_layers: int = 3,
        head_batch_norm: bool = False,
        norm_last_layer: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_start: float = 0.04,
        teacher_warmup_share: float = 0.0,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        frozen_share: float = 0.01,
    ):
        super().__init__()
        head = DINOHead(
            backbone.num_features,  # pyright: ignore[reportArgumentType]
            out_dim=out_dim,
            hidden=hidden_dim,
            bottleneck=bottleneck_dim,
            layers=head_layers,
            batch_norm=head_batch_norm,
            norm_last_layer=norm_last_layer,
        )
        self.student = Encoder(backbone, head)
        self.teacher = momentum_copy(self.student)
        self.register_buffer("center", torch.zeros(out_dim))
        self.student_temperature = student_temperature
        self.teacher_temperatures = (teacher_temperature_start, teacher_temperature, teacher_warmup_share)
        self.momentum = momentum
        self.center_momentum = center_momentum
        self.frozen_share = frozen_share
        self.new_centers: list[Tensor] = []

    @property
    def backbone(self) -> nn.Module:
        """The teacher's, as the official evaluation takes it (eval_knn.py, checkpoint_key "teacher")."""
        return self.teacher.backbone

    @property
    def teacher_temperature(self) -> float:
        """T_t of the coming step."""
        return linear_then_constant(self.progress, *self.teacher_temperatures)

    def forward(self, views: Sequence[Float[Tensor, "B 3 _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Cross-entropy over all pairs of different views; `entropy` and `information` of the teacher, in nats."""
        teacher = self._teach(views)
        return self._distil(views, teacher, resolved(weights))

    def after_step(self, progress: float) -> None:
        """The teacher follows, with the momentum of the step just taken; the center moves."""
        follow(self.teacher, self.student, cosine(self.progress, self.momentum, 1.0))
        if self.new_centers:  # one for each part of a batch that went through in parts
            self.center.lerp_(mean_over_ranks(torch.stack(self.new_centers).mean(0)), 1 - self.center_momentum)
        self.new_centers.clear()
        super().after_step(progress)

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """The prototypes, in the first part of the training."""
        return self.student.head.prototypes.parameters() if self.progress < self.frozen_share else ()  # pyright: ignore

    @torch.no_grad()
    def _teach(self, views: Sequence[Tensor]) -> Float[Tensor, "T B K"]:
        if len(views) < 2:
            raise ValueError(f"DINO takes two global views and any number of local ones, not {len(views)} view.")
        teacher = encode_views(self.teacher, views[:2])
        if self.training:
            self.new_centers.append(precise(teacher).mean(dim=(0, 1)))
        return teacher

    def _distil(self, views: Sequence[Tensor], teacher: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        loss = losses.dino(
            encode_views(self.student, views),
            teacher,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            center=self.center,
            weights=weights,
        )
        return {"loss": loss, **assignment_statistics(assignment(teacher, self.center, self.teacher_temperature))}


def encode_views(encoder: Encoder, views: Sequence[Float[Tensor, "B 3 _ _"]]) -> Float[Tensor, "V B K"]:
    """The encoder's output for each view.

    Neighbouring views of one size go through the backbone together, and all through the head together, so that batch
    norm sees what it sees in MultiCropWrapper of facebookresearch/dino utils.py.
    """
    features = [encoder.backbone(torch.cat(list(group))) for _, group in groupby(views, key=lambda view: view.shape)]
    return encoder.head(torch.cat(features)).unflatten(0, (len(views), -1))


@torch.no_grad()
def assignment_statistics(probability: Float[Tensor, "T B K"]) -> dict[str, Tensor]:
    """How the teacher uses its prototypes.

    `entropy`: mean over samples, log K when it says nothing. `information`: entropy of the mean assignment minus mean
    entropy; 0 in both kinds of collapse (all samples alike, or all uniform).
    """
    entropy = torch.special.entr(probability).sum(-1).mean()
    return {"entropy": entropy, "information": torch.special.entr(probability.mean(dim=(0, 1))).sum() - entropy}
