"""DINO: https://arxiv.org/abs/2104.14294.

Shapes: V views, T = 2 global views, B samples, K prototypes, H x W pixels.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslzoo import losses
from sslzoo.distributed import mean_over_ranks
from sslzoo.ema import ema_copy, ema_update
from sslzoo.heads import DINOHead, Encoder
from sslzoo.losses.dino import teacher_probs
from sslzoo.losses.reduction import upcast
from sslzoo.methods.method import Method, Weights, resolve_weights
from sslzoo.schedules import cosine, linear_then_constant


class DINO(Method):
    """views[:2] are global and seen by the teacher; the student sees all views, local ones at any size.

    Defaults: facebookresearch/dino@7c446df main_dino.py (get_args_parser, DINOLoss). Epochs there are fractions of the
    training here. sslzoo.build_optimizer freezes the last layer by dropping its gradient.

    Args:
        backbone: network with `.num_features`.
        out_dim: K.
        hidden_dim: width of the head's hidden layers.
        bottleneck_dim: width before the prototypes.
        head_layers: number of linear layers before the prototypes.
        head_batch_norm: whether the head has batch norm.
        norm_last_layer: keep the prototypes at norm 1; more stable, officially off for ViT-S.
        student_temperature: T_s.
        teacher_temperature: T_t after its warm-up.
        teacher_temperature_start: T_t at the start.
        teacher_warmup_fraction: fraction of the training over which T_t rises.
        momentum: momentum of the teacher at the start; rises to 1 along a cosine.
        center_momentum: momentum of the center.
        freeze_fraction: fraction of the training at whose start the last layer is frozen (one epoch of 100).
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
        teacher_warmup_fraction: float = 0.0,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        freeze_fraction: float = 0.01,
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
        self.teacher = ema_copy(self.student)
        self.register_buffer("center", torch.zeros(out_dim))
        self.student_temperature = student_temperature
        self.teacher_temperatures = (teacher_temperature_start, teacher_temperature, teacher_warmup_fraction)
        self.momentum = momentum
        self.center_momentum = center_momentum
        self.freeze_fraction = freeze_fraction
        self.new_centers: list[Tensor] = []

    @property
    def backbone(self) -> nn.Module:
        """The backbone of the teacher, which the official code evaluates (eval_knn.py, checkpoint_key "teacher")."""
        return self.teacher.backbone

    @property
    def teacher_temperature(self) -> float:
        """T_t of the next step."""
        return linear_then_constant(self.progress, *self.teacher_temperatures)

    def forward(self, views: Sequence[Float[Tensor, "B C _ _"]], weights: Weights = None) -> dict[str, Tensor]:
        """Return the cross-entropy over pairs of different views, and `entropy` and `information` (nats)."""
        teacher = self._teacher_logits(views)
        return self._distill(views, teacher, resolve_weights(weights))

    def after_step(self, progress: float) -> None:
        """Update the teacher, with the momentum of the step just done, and the center."""
        ema_update(self.teacher, self.student, cosine(self.progress, self.momentum, 1.0))
        if self.new_centers:  # one per gradient accumulation step
            self.center.lerp_(mean_over_ranks(torch.stack(self.new_centers).mean(0)), 1 - self.center_momentum)
        self.new_centers.clear()
        super().after_step(progress)

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Return the prototypes during the first `freeze_fraction` of the training."""
        return self.student.head.prototypes.parameters() if self.progress < self.freeze_fraction else ()  # pyright: ignore

    @torch.no_grad()
    def _teacher_logits(self, views: Sequence[Tensor]) -> Float[Tensor, "T B K"]:
        if len(views) < 2:
            raise ValueError(f"expected at least 2 views for DINO, the first 2 global, got {len(views)}")
        teacher = encode_views(self.teacher, views[:2])
        if self.training:
            self.new_centers.append(upcast(teacher).mean(dim=(0, 1)))
        return teacher

    def _distill(self, views: Sequence[Tensor], teacher: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        loss = losses.dino(
            encode_views(self.student, views),
            teacher,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            center=self.center,
            weights=weights,
        )
        return {"loss": loss, **assignment_statistics(teacher_probs(teacher, self.center, self.teacher_temperature))}


def encode_views(encoder: Encoder, views: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "V B K"]:
    """Return the output of the encoder for each view.

    Consecutive views of one size go through the backbone together, and all through the head together, so that batch
    norm statistics are those of MultiCropWrapper of facebookresearch/dino utils.py.
    """
    features = [encoder.backbone(torch.cat(list(group))) for _, group in groupby(views, key=lambda view: view.shape)]
    return encoder.head(torch.cat(features)).unflatten(0, (len(views), -1))


@torch.no_grad()
def assignment_statistics(probability: Float[Tensor, "T B K"]) -> dict[str, Tensor]:
    """Return `entropy` and `information` of assignments to prototypes.

    `entropy`: mean over samples; log K if uniform. `information`: entropy of the mean assignment minus mean entropy; 0
    in both kinds of collapse (all samples equal, or all uniform).
    """
    entropy = torch.special.entr(probability).sum(-1).mean()
    return {"entropy": entropy, "information": torch.special.entr(probability.mean(dim=(0, 1))).sum() - entropy}
